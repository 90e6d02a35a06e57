"""Images as the tensors that a program takes and gives."""

from __future__ import annotations

import numpy as np

from slide_deploy.errors import ArtifactError
from slide_deploy.validators._mil.dtypes import Array, dtype_named
from slide_deploy.validators._mil.program import Feature

__all__ = ["as_image", "as_tensor"]


def as_tensor(feature: Feature, given: Array) -> Array:
    """An image [h, w] or [h, w, 3], red first, as the tensor [1, c, h, w] a program takes.

    The elements of an image are uint8 (those of "grayscale float16" float16). A tensor is given
    back as it is. Core ML scales images to the size it needs; this is not done here.
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
    """A program's output [1, c, h, w] as an image, laid out as `as_tensor` takes it.

    Raises:
        ArtifactError: the output is not described as an image, or an element is no whole number
            from 0 to 255; how Core ML rounds and limits those is not documented.
    """
    if not feature.image:
        raise ArtifactError(f"output {feature.name} is not described as an image")
    planes: Array = tensor[0]
    if feature.image != "grayscale float16":
        if not np.all((planes >= 0) & (planes <= 255) & (planes == np.trunc(planes))):
            raise ArtifactError(f"output {feature.name}: pixels that are no whole numbers 0 to 255")
        planes = planes.astype(np.uint8)
    if feature.image == "BGR":
        planes = planes[::-1]
    return planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0)
