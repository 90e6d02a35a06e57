"""Decodes the package's descriptions of inputs and outputs: element types and valid shapes."""

from __future__ import annotations

from typing import Any

import numpy as np

from slide_deploy.errors import ArtifactError
from slide_deploy.validators._mil.dtypes import Array, dtype_named
from slide_deploy.validators._mil.program import Feature, Value

__all__ = ["feature", "initial_state", "state"]

_ARRAY_DTYPES = {65568: "fp32", 65552: "fp16", 65600: "fp64", 131104: "int32", 131080: "int8"}
# Colour space -> layout of colours, element type, channels.
_IMAGES = {
    10: ("grayscale", "fp32", 1),
    20: ("RGB", "fp32", 3),
    30: ("BGR", "fp32", 3),
    40: ("grayscale float16", "fp16", 1),
}
# Predictions of a classifier.
_LABELS = {"int64Type": "int64", "stringType": "string"}
_KEYS = {
    "int64KeyType": "dictionary<int64, fp64>",
    "stringKeyType": "dictionary<string, fp64>",
}


def feature(message: Any, value: Value) -> Feature:
    """A FeatureDescription, which must agree with the program's value of this name."""
    kind = message.type.WhichOneof("Type")
    if kind == "multiArrayType":
        found = _array(message.name, message.type.multiArrayType)
    elif kind == "imageType":
        found = _image(message.name, message.type.imageType, value.type.dtype)
    elif kind in _LABELS:
        found = Feature(message.name, _LABELS[kind], ())
    elif kind == "dictionaryType":
        key = message.type.dictionaryType.WhichOneof("KeyType")
        found = Feature(message.name, _KEYS.get(key, "dictionary without keys"), None)
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


def state(message: Any, value: Value) -> Value:
    """The state, after a check of its FeatureDescription."""
    kind = message.type.WhichOneof("Type")
    if kind != "stateType" or message.type.stateType.WhichOneof("Type") != "arrayType":
        raise ArtifactError(f"{message.name}: a state described as {kind or 'nothing'}")
    _agreed(_array(message.name, message.type.stateType.arrayType), value)
    initial_state(value)
    return value


def initial_state(value: Value) -> Array:
    """A state before the first run: zeros."""
    shape = value.type.shape
    if shape is None or None in shape:
        raise ArtifactError(f"the state {value.name} has no fixed shape")
    return np.zeros([int(size or 0) for size in shape], dtype_named(value.type.dtype).numpy)


def _image(name: str, image: Any, declared: str) -> Feature:
    if image.colorSpace not in _IMAGES:
        raise ArtifactError(f"{name}: unknown image colour space {image.colorSpace}")
    layout, dtype, channels = _IMAGES[image.colorSpace]
    # From iOS 17 on, a program may have uint8 grayscale inputs.
    if layout == "grayscale" and declared == "uint8":
        dtype = "uint8"
    shape = (1, channels, image.height, image.width)
    kind = image.WhichOneof("SizeFlexibility")
    if kind == "enumeratedSizes":
        shapes = tuple((1, channels, s.height, s.width) for s in image.enumeratedSizes.sizes)
        return Feature(name, dtype, shape, shapes=shapes, image=layout)
    if kind == "imageSizeRange":
        sides = (image.imageSizeRange.heightRange, image.imageSizeRange.widthRange)
        ranges = ((1, 1), (channels, channels), *map(_range, sides))
        return Feature(name, dtype, shape, ranges=ranges, image=layout)
    return Feature(name, dtype, shape, image=layout)


def _range(message: Any) -> tuple[int, int | None]:
    """A SizeRange; a negative upper bound means no bound."""
    return message.lowerBound, message.upperBound if message.upperBound >= 0 else None


def _agreed(found: Feature, value: Value) -> Feature:
    """The description, after a comparison of its dimensions with the program's."""
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
