"""The user's own images as probes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from slide_deploy.errors import MissingLibrary, UsageError
from slide_deploy.types import TensorSpec

__all__ = ["read_images"]

# Pictures are scaled as ImageNet training does; other preprocessing comes as .npy.
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def read_images(folder: Path, spec: TensorSpec) -> tuple[np.ndarray, ...]:
    """Every .npy array (C, H, W) and every picture of a folder, as float32 for input `spec`.

    Pictures are resized to the input's size and normalised with ImageNet's mean and deviation.
    Raises UsageError where the folder has none or one does not fit.
    """
    wanted = tuple(int(size) for size in spec.shape[1:])
    if not folder.is_dir():
        raise UsageError(f"--images {folder} is not a folder", "give a folder of .npy or .png")
    found = [
        _array(path, wanted) if path.suffix.lower() == ".npy" else _picture(path, wanted)
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in (".npy", *PICTURES)
    ]
    if not found:
        raise UsageError(
            f"--images {folder} has no images", f"put .npy, {', '.join(PICTURES)} files there"
        )
    return tuple(found)


def _array(path: Path, wanted: tuple[int, ...]) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is not a .npy array", "save it with numpy.save") from error
    if array.shape != wanted or not np.isfinite(array).all():
        raise UsageError(
            f"{path} has shape {array.shape} where the input is {wanted}, finite",
            "save images as (C, H, W), normalised as in training",
        )
    return np.asarray(array, dtype=np.float32)


def _picture(path: Path, wanted: tuple[int, ...]) -> np.ndarray:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise MissingLibrary("reading pictures", ("pillow",), "images") from None
    channels, height, width = wanted
    if channels != 3:
        raise UsageError(
            f"{path} is a picture, the input has {channels} channels", "save arrays as .npy"
        )
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB").resize((width, height))) / 255.0
    except (OSError, UnidentifiedImageError) as error:
        raise UsageError(f"{path} is not a picture that can be read", "remove it") from error
    normalised: np.ndarray = ((pixels - MEAN) / STD).transpose(2, 0, 1).astype(np.float32)
    return normalised
