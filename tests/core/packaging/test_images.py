"""Reading a folder of images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slide_deploy.errors import UsageError
from slide_deploy.packaging.images import read_images
from slide_deploy.packaging.preprocessing import Layout, fit, normalise, preset
from slide_deploy.types import TensorSpec

SPEC = TensorSpec("image", (1, 3, 8, 8))
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def test_pictures_go_through_the_models_preprocessing(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    way = replace(preset("imagenet", (8, 8)), resize=(8, 8), crop=None, mean=(0, 0, 0))
    [found] = read_images(tmp_path, SPEC, way)
    assert found.dtype == np.float32
    assert np.array_equal(found, normalise(way, fit(way, PIXELS)).astype(np.float32))


def test_without_preprocessing_they_are_those_of_imagenet(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    [found] = read_images(tmp_path, SPEC)
    [again] = read_images(tmp_path, SPEC, preset("imagenet", (8, 8)))
    assert np.array_equal(found, again)


def test_arrays_are_taken_as_they_are_in_the_order_of_names(tmp_path: Path) -> None:
    arrays = [np.full((3, 8, 8), value, np.float64) for value in (2.5, 1.5)]
    np.save(tmp_path / "b.npy", arrays[0])
    np.save(tmp_path / "a.npy", arrays[1])
    (tmp_path / "notes.txt").write_text("not an image")
    first, second = read_images(tmp_path, SPEC)
    assert (first.max(), second.max()) == (1.5, 2.5)
    assert first.dtype == np.float32


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 8, 9), np.float32),
        np.full((3, 8, 8), np.nan, np.float32),
        np.zeros((3, 8, 8), np.uint8),
    ],
)
def test_an_array_that_does_not_fit_is_named(array: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UsageError, match=r"a\.npy is .* but the input is finite \(3, 8, 8\)"):
        read_images(tmp_path, SPEC)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"hello", b"PK\x03\x04"])
def test_a_broken_array_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.npy is not a \.npy array"):
        read_images(tmp_path, SPEC)


def test_a_picture_that_stays_of_another_size_is_named(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"a\.png becomes \(3, 20, 30\)"):
        read_images(tmp_path, SPEC, preset("none", (8, 8)))
    too_small = replace(preset("imagenet", (8, 8)), resize=None, crop=(24, 24))
    with pytest.raises(UsageError, match=r"a\.png: a picture of 20x30"):
        read_images(tmp_path, SPEC, too_small)


def test_a_channels_last_model_gets_channels_last_pictures(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    way = replace(preset("imagenet", (8, 8)), layout=Layout.NHWC)
    [found] = read_images(tmp_path, TensorSpec("image", (1, 8, 8, 3)), way)
    assert found.shape == (8, 8, 3)


def test_a_model_without_three_channels_takes_no_pictures(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match="is a picture"):
        read_images(tmp_path, TensorSpec("image", (1, 1, 8, 8)))


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no images"):
        read_images(tmp_path, SPEC)
    with pytest.raises(UsageError, match="is not a folder"):
        read_images(tmp_path / "absent", SPEC)
