"""Calibration sets: valid and invalid files, and the digest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from slide_deploy.errors import UsageError
from slide_deploy.packaging.images import read_images
from slide_deploy.packaging.preprocessing import Layout, preset
from slide_deploy.parity.probes import natural_image
from slide_deploy.quantization.calibration import load_calibration
from slide_deploy.types import TensorSpec

SPEC = TensorSpec("image", (1, 3, 16, 16))
INPUTS = (SPEC,)


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """Natural-like images (N, 3, 16, 16) in float32."""
    rng = np.random.default_rng(seed)
    return np.stack([natural_image((3, 16, 16), rng) for _ in range(count)]).astype(np.float32)


def saved(folder: Path, array: np.ndarray) -> Path:
    np.save(folder / "set.npy", array)
    return folder / "set.npy"


def drawn(folder: Path, count: int, make: Callable[[int], np.ndarray]) -> Path:
    """A folder of `count` PNG files of the float images (3, H, W) that `make` gives."""
    for index in range(count):
        pixels = np.clip(127.5 + 50 * make(index), 0, 255).astype(np.uint8)
        Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / f"{index:03}.png")
    return folder


def natural(index: int) -> np.ndarray:
    return natural_image((3, 24, 24), np.random.default_rng(index))


def test_a_folder_of_pictures_goes_through_the_models_preprocessing(tmp_path: Path) -> None:
    way = replace(preset("imagenet", (16, 16)), mean=(0.5, 0.5, 0.5))
    folder = drawn(tmp_path, 32, natural)
    found = load_calibration(folder, INPUTS, way)
    assert np.array_equal(found.arrays["image"], np.stack(read_images(folder, SPEC, way)))
    assert (found.count, found.source, found.synthetic) == (32, tmp_path.name, False)


def test_an_array_is_taken_as_float32(tmp_path: Path) -> None:
    images = pictures(33)
    found = load_calibration(saved(tmp_path, images.astype(np.float64)), INPUTS)
    assert found.arrays["image"].dtype == np.float32
    assert np.array_equal(found.arrays["image"], images)


def test_several_inputs_come_by_name(tmp_path: Path) -> None:
    inputs = (TensorSpec("tokens", (1, 4), "int64"), SPEC)
    tokens = np.arange(128, dtype=np.int32).reshape(32, 4)
    np.savez(tmp_path / "set.npz", image=pictures(32), tokens=tokens)
    found = load_calibration(tmp_path / "set.npz", inputs)
    assert found.arrays["tokens"].dtype == np.int64
    assert np.array_equal(found.arrays["tokens"], tokens)
    with pytest.raises(UsageError, match="has image, tokens, but the model has image"):
        load_calibration(tmp_path / "set.npz", INPUTS)


@settings(max_examples=20)
@given(st.integers(8, 40), st.integers(8, 40), st.sampled_from([None, *Layout]))
def test_synthetic_images_are_marked_and_fit_any_image(
    height: int, width: int, layout: Layout | None
) -> None:
    way = None if layout is None else replace(preset("imagenet", (height, width)), layout=layout)
    shape = (height, width, 3) if layout is Layout.NHWC else (3, height, width)
    found = load_calibration("synthetic", (TensorSpec("x", (1, *shape)),), way)
    assert found.synthetic
    assert found.arrays["x"].shape == (32, *shape)
    assert found.arrays["x"].dtype == np.float32
    assert 0.3 < found.arrays["x"].std() < 2


def test_synthetic_images_are_the_same_each_time() -> None:
    first, second = (load_calibration("synthetic", INPUTS) for _ in range(2))
    assert first.sha256 == second.sha256


def test_synthetic_pixels_have_the_range_of_the_models_pictures() -> None:
    found = load_calibration("synthetic", INPUTS, preset("none", (16, 16))).arrays["image"]
    assert 0 <= found.min() < 60
    assert 200 < found.max() <= 255


def test_the_digest_stands_for_the_content_alone(tmp_path: Path) -> None:
    images, other = pictures(32), tmp_path / "other.npz"
    digest = load_calibration(saved(tmp_path, images), INPUTS).sha256
    np.savez(other, image=images)
    assert load_calibration(other, INPUTS).sha256 == digest
    images[31, 2, 15, 15] += 1e-3
    assert load_calibration(saved(tmp_path, images), INPUTS).sha256 != digest


# ---- what is refused ----


def test_a_missing_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="absent does not exist"):
        load_calibration(tmp_path / "absent", INPUTS)
    with pytest.raises(UsageError, match=r"absent\.npy cannot be read \(FileNotFoundError\)"):
        load_calibration(tmp_path / "absent.npy", INPUTS)
    (tmp_path / "set.txt").write_text("")
    with pytest.raises(UsageError, match=r"set\.txt is not a \.npy or \.npz file"):
        load_calibration(tmp_path / "set.txt", INPUTS)


@pytest.mark.parametrize("name", ["set.npy", "set.npz"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"hello"])
def test_a_broken_file_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match="cannot be read"):
        load_calibration(tmp_path / name, INPUTS)


def _with_a_nan(images: np.ndarray) -> np.ndarray:
    images[5, 0, 0, 0] = np.nan
    return images


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (pictures(31), "has 31 samples, but at least 32"),
        (np.zeros((0, 3, 16, 16)), "has 0 samples"),
        (np.repeat(pictures(8), 8, 0), "has 8 samples of 64 that differ"),
        (np.concatenate([pictures(31), np.zeros((9, 3, 16, 16))]), "31 samples of 40"),
        (np.zeros((40, 3, 16, 16)), "is constant"),
        (np.arange(120.0).reshape(40, 3, 1, 1) + np.zeros((1, 1, 16, 16)), "is constant"),
        (pictures(40)[:, :2], r"is \(40, 2, 16, 16\), expected \(N, 3, 16, 16\)"),
        (pictures(40)[0], r"is \(3, 16, 16\), expected"),
        (np.float32(1), r"is \(\), expected"),
        (_with_a_nan(pictures(40)), "NaN or infinite"),
        (pictures(40).astype(np.float64) * 1e60, "NaN or infinite"),
        (np.zeros((40, 3, 16, 16), np.uint8), "image is uint8, but the input is float32"),
    ],
)
def test_a_set_that_does_not_fit_is_refused(
    array: np.ndarray, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        load_calibration(saved(tmp_path, array), INPUTS)
    assert refused.value.hint


def test_fewer_images_can_be_allowed(tmp_path: Path) -> None:
    assert load_calibration(saved(tmp_path, pictures(4)), INPUTS, least=4).count == 4


def test_inputs_of_different_counts_are_refused(tmp_path: Path) -> None:
    inputs = (TensorSpec("tokens", (1, 4), "int64"), SPEC)
    np.savez(tmp_path / "set.npz", image=pictures(32), tokens=np.zeros((33, 4), np.int64))
    with pytest.raises(UsageError, match="tokens 33"):
        load_calibration(tmp_path / "set.npz", inputs)


@settings(max_examples=15)
@given(
    st.integers(8, 48),
    st.sampled_from([1, 3]),
    st.sampled_from(["normal", "uniform", "laplace"]),
    st.integers(0, 2**32 - 1),
)
def test_noise_of_any_size_and_distribution_is_refused(
    tmp_path_factory: pytest.TempPathFactory, size: int, channels: int, kind: str, seed: int
) -> None:
    noise = getattr(np.random.default_rng(seed), kind)(size=(32, channels, size, size))
    inputs = (TensorSpec("image", (1, channels, size, size)),)
    with pytest.raises(UsageError, match="is noise"):
        load_calibration(saved(tmp_path_factory.mktemp("noise"), noise), inputs)


@settings(max_examples=15)
@given(st.integers(8, 48), st.sampled_from([1, 3]), st.integers(0, 2**32 - 1))
def test_images_like_photographs_are_taken(
    tmp_path_factory: pytest.TempPathFactory, size: int, channels: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    images = np.stack([natural_image((channels, size, size), rng) for _ in range(32)])
    inputs = (TensorSpec("image", (1, channels, size, size)),)
    path = saved(tmp_path_factory.mktemp("natural"), images)
    assert load_calibration(path, inputs).count == 32


def test_pictures_of_noise_are_refused_after_resizing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = drawn(tmp_path, 32, lambda _: rng.standard_normal((3, 64, 64)))
    with pytest.raises(UsageError, match="is noise"):
        load_calibration(folder, INPUTS, preset("imagenet", (16, 16)))


def test_some_noise_among_pictures_is_taken_and_much_is_not(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal((40, 3, 16, 16))
    some = np.concatenate([pictures(40), noise[:10]])
    assert load_calibration(saved(tmp_path, some), INPUTS).count == 50
    with pytest.raises(UsageError, match="is noise"):
        load_calibration(saved(tmp_path, np.concatenate([pictures(20), noise])), INPUTS)


def test_a_channels_last_set_is_judged_along_its_own_axes(tmp_path: Path) -> None:
    way = replace(preset("imagenet", (16, 16)), layout=Layout.NHWC)
    inputs = (TensorSpec("image", (1, 16, 16, 3)),)
    last = np.moveaxis(pictures(32), 1, -1)
    assert load_calibration(saved(tmp_path, last), inputs, way).count == 32
    one_colour = np.zeros((40, 16, 16, 3)) + np.arange(120.0).reshape(40, 1, 1, 3)
    with pytest.raises(UsageError, match="is constant"):
        load_calibration(saved(tmp_path, one_colour), inputs, way)


@pytest.mark.parametrize("source", ["synthetic", "folder"])
def test_models_of_other_inputs_need_a_file(source: str, tmp_path: Path) -> None:
    place = source if source == "synthetic" else drawn(tmp_path, 1, natural)
    with pytest.raises(UsageError, match=r"model with one image input|has other inputs"):
        load_calibration(place, (TensorSpec("tokens", (1, 4), "int64"),))
