from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slide_deploy.coreml import Feature, Program, read, read_feeds
from slide_deploy.errors import UsageError

PACKAGE = Path(__file__).parents[2] / "fixtures" / "written-before" / "module.mlpackage"
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)


def program(*inputs: Feature) -> Program:
    return replace(read(PACKAGE), inputs=inputs)


TENSOR = Feature("x", "fp32", (2, 3))
IDS = Feature("ids", "int32", (2,))
COLOURS = Feature("image", "fp32", (1, 3, 4, 5), image="BGR")
GREY = Feature("image", "fp16", (1, 1, 4, 5), image="grayscale float16")


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def test_arrays_are_taken_by_name_and_converted(tmp_path: Path) -> None:
    x = saved(tmp_path / "x.npy", np.full((2, 3), 0.1))
    ids = saved(tmp_path / "ids.npy", np.array([1, 2]))
    feeds = read_feeds(program(TENSOR, IDS), [f"ids={ids}", f"x={x}"])
    assert feeds["x"].dtype == np.float32
    np.testing.assert_array_equal(feeds["x"], np.full((2, 3), np.float32(0.1)))
    np.testing.assert_array_equal(feeds["ids"], np.array([1, 2], np.int32))


def test_one_input_needs_no_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "a=b.npy", np.ones((2, 3), np.float32))
    assert list(read_feeds(program(TENSOR), [str(path)])) == ["x"]


def test_pictures_are_for_inputs_that_are_images(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(PIXELS).save(path)
    np.testing.assert_array_equal(read_feeds(program(COLOURS), [str(path)])["image"], PIXELS)
    Image.fromarray(PIXELS[..., 0]).save(path)
    grey = read_feeds(program(GREY), [str(path)])["image"]
    assert grey.dtype == np.float16
    np.testing.assert_array_equal(grey, PIXELS[..., 0])


@pytest.mark.parametrize(
    ("feature", "picture", "match"),
    [
        (TENSOR, PIXELS, "is a tensor, .* a picture"),
        (COLOURS, PIXELS[:3], r"is 5x3, a size image does not take \(resize .* to 5x4\)"),
        (GREY, PIXELS, "has colours, image is grayscale"),
    ],
)
def test_a_picture_that_does_not_fit_is_refused(
    tmp_path: Path, feature: Feature, picture: np.ndarray, match: str
) -> None:
    Image.fromarray(picture).save(tmp_path / "picture.png")
    with pytest.raises(UsageError, match=match):
        read_feeds(program(feature), [str(tmp_path / "picture.png")])


def test_numbers_that_the_type_cannot_hold_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "ids.npy", np.array([0.5, 1]))
    with pytest.raises(UsageError, match="holds float64, the input ids is int32"):
        read_feeds(program(IDS), [str(path)])


def test_an_array_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.npy", np.ones((3, 2), np.float32))
    with pytest.raises(UsageError, match=r"is of shape 3x2, not one of x \(give .* 2x3\)"):
        read_feeds(program(TENSOR), [str(path)])


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ([], r"no file for the input x, ids \(add --input x=FILE.npy --input ids=FILE.npy\)"),
        (["{x}"], "does not say which input it is for"),
        (["y={x}"], "does not say which input it is for"),
        (["x={x}", "x={x}"], "two files for the input x"),
        (["x={missing}.npy"], "is not a .npy array"),
    ],
)
def test_what_names_no_input_is_refused(tmp_path: Path, files: list[str], match: str) -> None:
    path = saved(tmp_path / "x.npy", np.ones((2, 3), np.float32))
    given = [file.format(x=path, missing=tmp_path / "none") for file in files]
    with pytest.raises(UsageError, match=match):
        read_feeds(program(TENSOR, IDS), given)
