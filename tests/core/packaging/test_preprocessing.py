"""Preprocessing equals that of the training scripts."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from slide_deploy.errors import UnknownName, UsageError
from slide_deploy.packaging.preprocessing import (
    ColourOrder,
    InputKind,
    Interpolation,
    Layout,
    Preprocessing,
    Rounding,
    fit,
    load_image,
    normalise,
    of_training_config,
    prepare,
    preset,
    read_preprocessing,
)
from slide_deploy.utils.records import to_json

IMAGENET = preset("imagenet", (224, 224))


def gradient(height: int, width: int) -> np.ndarray:
    """Red grows downwards, green to the right, blue is 64."""
    rows, columns = np.mgrid[:height, :width]
    red, green = rows * 255 // max(height - 1, 1), columns * 255 // max(width - 1, 1)
    return np.stack([red, green, np.full_like(red, 64)], -1).astype(np.uint8)


def test_the_imagenet_preset_is_the_evaluation_of_the_swin_script() -> None:
    assert (IMAGENET.resize, IMAGENET.crop) == (256, (224, 224))
    assert IMAGENET.interpolation is Interpolation.BICUBIC
    assert preset("imagenet", (384, 384)).resize == 438


def test_an_unknown_preset_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'imagenet'"):
        preset("imagenett", (8, 8))


def test_the_preset_none_changes_nothing() -> None:
    image = gradient(5, 7)
    nothing = preset("none", (5, 7))
    assert np.array_equal(fit(nothing, image), image)
    assert np.array_equal(normalise(nothing, image), image.transpose(2, 0, 1))


@given(st.integers(8, 60), st.integers(8, 60), st.sampled_from([(8, 8), (6, 10)]))
def test_any_picture_fits_the_models_size(height: int, width: int, size: tuple[int, int]) -> None:
    assert fit(preset("imagenet", size), gradient(height, width)).shape == (*size, 3)


def test_a_resized_and_cropped_picture_is_what_pillow_makes_of_it() -> None:
    image = gradient(30, 61)  # 8 on the shortest side: the other is 16.27, which rounds down
    way = replace(IMAGENET, resize=8, crop=(4, 6))
    whole = np.asarray(Image.fromarray(image).resize((16, 8), Image.Resampling.BICUBIC))
    assert np.array_equal(fit(way, image), whole[2:6, 5:11])


@pytest.mark.parametrize(("rounding", "width"), [(Rounding.DOWN, 16), (Rounding.NEAREST, 17)])
def test_the_longer_side_is_rounded_as_asked(rounding: Rounding, width: int) -> None:
    way = replace(IMAGENET, resize=8, crop=None, rounding=rounding)
    assert fit(way, gradient(30, 63)).shape == (8, width, 3)  # 16.8


def test_an_exact_size_distorts() -> None:
    way = replace(IMAGENET, resize=(9, 5), crop=None)
    assert fit(way, gradient(30, 60)).shape == (9, 5, 3)


def test_filters_differ() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    made = {
        filter: fit(replace(IMAGENET, resize=7, crop=None, interpolation=filter), image)
        for filter in Interpolation
    }
    assert len({value.tobytes() for value in made.values()}) == len(Interpolation)


def test_a_picture_smaller_than_the_crop_is_refused() -> None:
    with pytest.raises(UsageError, match="20x30 pixels is smaller than the crop 24x24"):
        fit(replace(IMAGENET, resize=None, crop=(24, 24)), gradient(20, 30))


def test_one_pixel_is_normalised_as_computed_by_hand() -> None:
    pixel = np.array([[[255, 0, 51]]], np.uint8)
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]
    assert normalise(IMAGENET, pixel)[:, 0, 0] == pytest.approx(expected, rel=1e-14)


def test_colours_are_reordered_before_mean_and_deviation() -> None:
    way = replace(
        preset("none", (1, 1)), colour_order=ColourOrder.BGR, mean=(1, 2, 3), std=(1, 2, 4)
    )
    pixel = np.array([[[30, 20, 10]]], np.uint8)
    assert normalise(way, pixel)[:, 0, 0].tolist() == [9, 9, 6.75]


@given(st.sampled_from(Layout), st.sampled_from(ColourOrder), st.integers(0, 2**32 - 1))
def test_a_batch_is_normalised_as_its_images(layout: Layout, order: ColourOrder, seed: int) -> None:
    way = replace(IMAGENET, layout=layout, colour_order=order)
    batch = np.random.default_rng(seed).integers(0, 256, (2, 3, 4, 3), np.uint8)
    found = normalise(way, batch, np.float32)
    assert found.shape == ((2, 3, 3, 4) if layout is Layout.NCHW else (2, 3, 4, 3))
    assert found.dtype == np.float32
    assert np.array_equal(found, np.stack([normalise(way, image, np.float32) for image in batch]))
    assert found == pytest.approx(normalise(way, batch), abs=1e-5)


def test_only_pictures_of_an_artifact_that_normalises_are_prepared() -> None:
    baked = replace(IMAGENET, input=InputKind.IMAGE)
    inputs = {"image": gradient(4, 4)[None], "scale": np.ones((1, 2), np.float32)}
    found = prepare(baked, inputs)
    assert np.array_equal(found["image"], normalise(IMAGENET, inputs["image"]))
    assert found["image"].dtype == np.float64
    assert found["scale"] is inputs["scale"]
    assert prepare(IMAGENET, inputs) is inputs
    assert prepare(None, inputs) is inputs


# ---- the training config ----


def config(**changes: Any) -> dict[str, Any]:
    data = {"IMG_SIZE": 224, "INTERPOLATION": "bicubic"} | changes.pop("data", {})
    return {"DATA": data, "TEST": {"CROP": True} | changes.pop("test", {})}


def test_the_training_config_tells_the_evaluation() -> None:
    assert of_training_config(config(), (224, 224)) == IMAGENET


def test_without_a_centre_crop_the_picture_is_distorted_to_the_size() -> None:
    found = of_training_config(config(test={"CROP": False}), (224, 192))
    assert found == replace(IMAGENET, resize=(224, 192), crop=None)


@pytest.mark.parametrize(
    ("name", "filter"),
    [("lanczos", "lanczos"), ("hamming", "hamming"), ("random", "bilinear"), ("box", "bilinear")],
)
def test_names_the_script_does_not_know_are_bilinear(name: str, filter: str) -> None:
    found = of_training_config(config(data={"INTERPOLATION": name}), (224, 224))
    assert found is not None
    assert found.interpolation == filter


def test_small_models_do_not_resize() -> None:
    found = of_training_config(config(), (32, 32))
    assert found == replace(preset("imagenet", (32, 32)), resize=None, crop=None)


@pytest.mark.parametrize(
    "silent",
    [None, {}, {"DATA": None, "TEST": {}}, config(data={"INTERPOLATION": 3}), {"DATA": {}}],
)
def test_a_config_that_tells_nothing_gives_nothing(silent: dict[str, Any] | None) -> None:
    assert of_training_config(silent, (224, 224)) is None


# ---- the file ----


@pytest.mark.parametrize(
    "way",
    [IMAGENET, preset("none", (1, 1)), replace(IMAGENET, resize=(3, 4), input=InputKind.IMAGE)],
)
def test_a_file_gives_back_what_was_written(way: Preprocessing, tmp_path: Path) -> None:
    path = tmp_path / "preprocessing.json"
    path.write_text(to_json(way))
    assert read_preprocessing(path) == way


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("input", "picture"),
        ("resize", 0),
        ("resize", -3),
        ("resize", True),
        ("resize", [4]),
        ("resize", [4, 0]),
        ("interpolation", "cubic"),
        ("rounding", "up"),
        ("crop", 224),
        ("crop", [0, 4]),
        ("colour_order", "rgb"),
        ("scale", None),
        ("scale", 0),
        ("scale", "1/255"),
        ("mean", [0.5]),
        ("mean", [0.5, None, 0.5]),
        ("mean", 10**400),
        ("std", [0, 1, 1]),
        ("layout", "CHW"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_name(
    name: str, value: object, tmp_path: Path
) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps(json.loads(to_json(IMAGENET)) | {name: value}))
    with pytest.raises(UsageError, match=rf"p\.json: {name} is .*expected"):
        read_preprocessing(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[]", "contains no JSON object"),
        ("{", "not JSON"),
        ('{"mean": 1, "mean": 2}', "'mean' is a duplicate"),
        ("[" * 100_000, "not JSON"),
        ('{"means": 1}', "unknown key 'means'"),
        ("{}", "lacks 'input'"),
    ],
)
def test_a_file_of_another_form_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_preprocessing(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.json cannot be read"):
        read_preprocessing(tmp_path / "absent.json")


# ---- pictures ----


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "RGBA", "LA", "YCbCr", "I;16"])
def test_every_mode_becomes_rgb(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    grey = Image.fromarray(np.full((3, 5), 255, np.uint8))
    deep = Image.fromarray(np.full((3, 5), 65535, np.uint16))
    (deep if mode == "I;16" else grey.convert("RGB").convert(mode)).save(path)
    found = load_image(path)
    assert found.dtype == np.uint8
    assert np.array_equal(found, np.full((3, 5, 3), 255))


def test_sixteen_bits_become_eight_by_the_nearest_level(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 128, 129, 257, 32896, 65535]], np.uint16)).save(path)
    assert load_image(path)[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[[9, 9, 9, 0], [0, 0, 0, 51], [9, 8, 7, 255]]], np.uint8)).save(path)
    assert load_image(path)[0].tolist() == [[255] * 3, [204] * 3, [9, 8, 7]]


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90° clockwise
    Image.fromarray(gradient(3, 5)).save(path, exif=exif)
    assert np.array_equal(load_image(path), np.rot90(gradient(3, 5), -1))


@pytest.mark.parametrize("kept", [0, 10, 60])
def test_a_broken_picture_is_named(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(gradient(40, 40)).save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UsageError, match=r"a\.png is not a picture that can be read"):
        load_image(path)


def test_grey_levels_without_a_range_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    Image.fromarray(np.ones((2, 2), np.float32)).save(path)
    with pytest.raises(UsageError, match=r"a\.tiff is not a picture"):
        load_image(path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["scale", "mean", "std"])
def test_numbers_that_are_not_finite_are_refused(field, value):
    changed = value if field == "scale" else (0.5, value, 0.5)
    with pytest.raises(UsageError, match=f"{field} is"):
        replace(preset("imagenet", (32, 32)), **{field: changed})
