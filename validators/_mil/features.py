"""The package's description of an input or output: element type and the shapes it may have."""

from __future__ import annotations

from typing import Any

from slide_deploy.errors import ArtifactError
from slide_deploy.validators._mil.program import Feature, Value

__all__ = ["feature"]

_ARRAY_DTYPES = {65568: "fp32", 65552: "fp16", 65600: "fp64", 131104: "int32", 131080: "int8"}
_IMAGES = {10: ("fp32", 1), 20: ("fp32", 3), 30: ("fp32", 3), 40: ("fp16", 1)}


def feature(message: Any, value: Value) -> Feature:
    """A FeatureDescription, which must agree with the value the program gives that name."""
    kind = message.type.WhichOneof("Type")
    if kind == "multiArrayType":
        found = _array(message.name, message.type.multiArrayType)
    elif kind == "imageType":
        found = _image(message.name, message.type.imageType)
    else:
        raise ArtifactError(f"{message.name}: a feature of {kind or 'no type'} is not supported")
    return _agreed(found, value)


def _array(name: str, array: Any) -> Feature:
    dtype = _ARRAY_DTYPES.get(array.dataType)
    if dtype is None:
        raise ArtifactError(f"{name}: unknown array element type {array.dataType}")
    shape = tuple(array.shape)
    kind = array.WhichOneof("ShapeFlexibility")
    if kind == "enumeratedShapes":
        shapes = tuple(tuple(s.shape) for s in array.enumeratedShapes.shapes)
        return Feature(name, dtype, shape, shapes=shapes)
    if kind == "shapeRange":
        return Feature(name, dtype, shape, ranges=tuple(map(_range, array.shapeRange.sizeRanges)))
    return Feature(name, dtype, shape)


def _image(name: str, image: Any) -> Feature:
    if image.colorSpace not in _IMAGES:
        raise ArtifactError(f"{name}: unknown image colour space {image.colorSpace}")
    dtype, channels = _IMAGES[image.colorSpace]
    shape = (1, channels, image.height, image.width)
    kind = image.WhichOneof("SizeFlexibility")
    if kind == "enumeratedSizes":
        shapes = tuple((1, channels, s.height, s.width) for s in image.enumeratedSizes.sizes)
        return Feature(name, dtype, shape, shapes=shapes, image=True)
    if kind == "imageSizeRange":
        sides = (image.imageSizeRange.heightRange, image.imageSizeRange.widthRange)
        ranges = ((1, 1), (channels, channels), *map(_range, sides))
        return Feature(name, dtype, shape, ranges=ranges, image=True)
    return Feature(name, dtype, shape, image=True)


def _range(message: Any) -> tuple[int, int | None]:
    """A SizeRange; a negative upper bound is none."""
    return message.lowerBound, message.upperBound if message.upperBound >= 0 else None


def _agreed(found: Feature, value: Value) -> Feature:
    """The description, once no dimension of it contradicts the program's."""
    declared = value.type.shape
    if found.dtype != value.type.dtype:
        raise ArtifactError(
            f"{found.name}: described as {found.dtype}, in the program {value.type.dtype}"
        )
    # Core ML has no arrays of rank 0: it describes a scalar as [1], and an unknown shape as [].
    if not found.shape or (found.shape == (1,) and declared == ()):
        return Feature(found.name, found.dtype, declared)
    shapes: list[tuple[int | None, ...]] = [found.shape, *found.shapes]
    if found.ranges:
        shapes.append(tuple(low if low == high else None for low, high in found.ranges))
    for shape in shapes:
        if declared is not None and not _overlap(shape, declared):
            raise ArtifactError(
                f"{found.name}: described as {list(shape)}, in the program {list(declared)}"
            )
    return found


def _overlap(described: tuple[int | None, ...], declared: tuple[int | None, ...]) -> bool:
    return len(described) == len(declared) and all(
        b is None or a == b for a, b in zip(described, declared, strict=True)
    )
