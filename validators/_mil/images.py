"""Converts images to and from tensors of a program."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from slide_deploy.errors import ArtifactError
from slide_deploy.validators._mil.dtypes import Array, dtype_named
from slide_deploy.validators._mil.program import Feature, Program

__all__ = ["COLOURED", "as_image", "as_tensor", "pictures"]

# Images that a device passes as pixels 0 to 255, in RGB to its caller.
COLOURED = ("RGB", "BGR")


def pictures(program: Program, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
    """The feeds with pictures (1, H, W, 3) as the images that the program takes, (H, W, 3)."""
    images = {feature.name for feature in program.inputs if feature.image in COLOURED}
    return {name: value[0] if name in images else value for name, value in feeds.items()}


def as_tensor(feature: Feature, given: Array) -> Array:
    """Convert an image [h, w] or [h, w, 3], in RGB, to the input tensor [1, c, h, w].

    The elements of an image are uint8 ("grayscale float16": float16). A tensor is returned
    unchanged. Core ML also scales images to the declared size, which is not implemented.
    """
    if not feature.image or given.ndim == 4:
        return given
    colours = feature.image in ("RGB", "BGR")
    stored = np.dtype(np.float16 if feature.image == "grayscale float16" else np.uint8)
    if given.ndim != 2 + colours or (colours and given.shape[2] != 3) or given.dtype != stored:
        layout = "[height, width, 3]" if colours else "[height, width]"
        raise ArtifactError(
            f"input {feature.name}: {given.dtype} {given.shape} given,"
            f" not an image of {stored} {layout}"
        )
    planes = given.transpose(2, 0, 1) if colours else given[None]
    if feature.image == "BGR":
        planes = planes[::-1]
    return np.ascontiguousarray(planes[None]).astype(dtype_named(feature.dtype).numpy)


def as_image(feature: Feature, tensor: Array) -> Array:
    """Convert an output [1, c, h, w] to an image in the format of `as_tensor`.

    Raises:
        ArtifactError: the output is not described as an image, or an element is not a whole number
            from 0 to 255, whose rounding in Core ML is not documented.
    """
    if not feature.image:
        raise ArtifactError(f"output {feature.name} is not described as an image")
    planes: Array = tensor[0]
    if feature.image != "grayscale float16":
        if not np.all((planes >= 0) & (planes <= 255) & (planes == np.trunc(planes))):
            raise ArtifactError(f"output {feature.name}: pixels are not whole numbers 0 to 255")
        planes = planes.astype(np.uint8)
    if feature.image == "BGR":
        planes = planes[::-1]
    return planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0)
