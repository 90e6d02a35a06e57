"""Inputs of a Core ML program from files: arrays and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from slide_deploy.coreml.summary import feature_shape
from slide_deploy.errors import UsageError
from slide_deploy.packaging.preprocessing import load_image
from slide_deploy.validators._mil import Feature, Program, dtype_named

__all__ = ["read_feeds"]


def read_feeds(program: Program, files: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays to evaluate a program with, by input.

    files: `NAME=FILE`, or `FILE` alone where the program has one input. A .npy file is an array of
        the input's shape; numbers of another type are converted. A picture is for an input that
        the package declares as an image, and must have its size.

    Raises:
        UsageError: an input without a file, a file that cannot be read or does not fit.
    """
    inputs = {feature.name: feature for feature in program.inputs}
    feeds = {}
    for entry in files:
        name, path = _named(entry, inputs)
        if name in feeds:
            raise UsageError(f"two files for the input {name}", "give one of them")
        feeds[name] = _read(path, inputs[name])
    missing = [name for name in inputs if name not in feeds]
    if missing:
        example = " ".join(f"--input {name}=FILE.npy" for name in missing)
        raise UsageError(f"no file for the input {', '.join(missing)}", f"add {example}")
    return feeds


def _named(entry: str, inputs: dict[str, Feature]) -> tuple[str, Path]:
    name, separator, path = entry.partition("=")
    if separator and name in inputs:
        return name, Path(path)
    if len(inputs) == 1 and not (separator and not Path(entry).exists()):
        return next(iter(inputs)), Path(entry)
    raise UsageError(
        f"{entry} does not say which input it is for",
        f"write NAME=FILE; inputs: {', '.join(inputs)}",
    )


def _read(path: Path, feature: Feature) -> np.ndarray:
    if path.suffix.lower() != ".npy":
        return _picture(path, feature)
    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{path} is not a .npy array", "save it with numpy.save") from error
    if feature.image and array.ndim != 4:
        return np.asarray(array)
    wanted = dtype_named(feature.dtype).numpy
    converted = array.astype(wanted) if array.dtype.kind in "fiub" else array
    lossy = wanted.kind != "f" and not np.array_equal(converted, array)
    if converted.dtype != wanted or lossy:
        raise UsageError(
            f"{path} holds {array.dtype}, the input {feature.name} is {wanted}",
            "convert the array first",
        )
    if not feature.accepts(array.shape):
        raise UsageError(
            f"{path} is of shape {'x'.join(map(str, array.shape))}, not one of {feature.name}",
            f"give an array of shape {'x'.join(feature_shape(feature))}",
        )
    return np.asarray(converted)


def _picture(path: Path, feature: Feature) -> np.ndarray:
    if not feature.image:
        raise UsageError(
            f"the input {feature.name} is a tensor, {path} a picture",
            "preprocess it as in training and save the array with numpy.save",
        )
    pixels = load_image(path)
    if not feature.accepts((1, 3 if feature.image in ("RGB", "BGR") else 1, *pixels.shape[:2])):
        height, width = (feature.shape or (1, 1, 0, 0))[2:]
        raise UsageError(
            f"{path} is {pixels.shape[1]}x{pixels.shape[0]}, a size {feature.name} does not take",
            f"resize the picture to {width}x{height}",
        )
    if feature.image in ("RGB", "BGR"):
        return pixels
    grey: np.ndarray = pixels[..., 0]
    if (pixels != grey[..., None]).any():
        raise UsageError(f"{path} has colours, {feature.name} is grayscale", "convert the picture")
    return grey.astype(np.float16) if feature.dtype == "fp16" else grey
