"""Reads a folder of images as inputs of a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from slide_deploy.errors import UsageError
from slide_deploy.packaging.preprocessing import Preprocessing, fit, load_image, normalise, preset
from slide_deploy.types import TensorSpec

__all__ = ["PICTURES", "read_image", "read_images"]

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


def read_images(
    folder: Path, spec: TensorSpec, preprocessing: Preprocessing | None = None
) -> tuple[np.ndarray, ...]:
    """Every .npy array and every picture of a folder as an image for the input `spec`.

    Arrays are not changed; pictures are preprocessed, by default with the preset `imagenet`. Where
    the artifact takes pictures, they are resized and cropped only.
    Raises UsageError if the folder has no image, or one does not match the input.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder of images", "pass a folder of .npy or .png")
    paths = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in (".npy", *PICTURES)]
    if not paths:
        raise UsageError(f"{folder} has no images", f"put .npy, {', '.join(PICTURES)} files there")
    return tuple(read_image(path, spec, preprocessing) for path in paths)


def read_image(
    path: Path, spec: TensorSpec, preprocessing: Preprocessing | None = None
) -> np.ndarray:
    """One .npy array or picture, as `read_images` reads it."""
    wanted = tuple(int(size) for size in spec.shape[1:])
    if path.suffix.lower() == ".npy":
        return _array(path, wanted, spec.dtype)
    return _picture(path, spec, preprocessing)


def _array(path: Path, wanted: tuple[int, ...], dtype: str) -> np.ndarray:
    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{path} is not a .npy array", "save it with numpy.save") from error
    pixels = dtype == "uint8"
    kinds = array.dtype == np.uint8 if pixels else array.dtype.kind == "f"
    if array.shape != wanted or not kinds or not np.isfinite(array).all():
        raise UsageError(
            f"{path} is {array.dtype} of shape {array.shape}, but the input is "
            f"{'uint8' if pixels else 'finite'} {wanted}",
            "save pictures as (H, W, 3) of uint8"
            if pixels
            else "save images as (C, H, W) of float32, normalised as in training",
        )
    return np.asarray(array, dtype=dtype)


def _picture(path: Path, spec: TensorSpec, preprocessing: Preprocessing | None) -> np.ndarray:
    wanted = tuple(int(size) for size in spec.shape[1:])
    if len(wanted) != 3 or 3 not in (wanted[0], wanted[-1]):
        raise UsageError(
            f"{path} is a picture, but the input has shape {wanted}", "save arrays as .npy"
        )
    size = wanted[:2] if spec.is_picture else wanted[1:]
    way = preprocessing or preset("imagenet", (size[0], size[1]))
    try:
        pixels = fit(way, load_image(path))
        image = pixels if spec.is_picture else normalise(way, pixels).astype(np.float32)
    except UsageError as error:
        where = "" if str(path) in error.message else f"{path}: "
        raise UsageError(f"{where}{error.message}", error.hint) from error
    if image.shape != wanted:
        raise UsageError(
            f"{path} becomes {image.shape} by the preprocessing, but the input is {wanted}",
            "use a preprocessing that resizes and crops to the model's size",
        )
    return image
