"""Decodes types and constants of MIL.proto."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from slide_deploy.errors import ArtifactError
from slide_deploy.validators._mil.dtypes import Array, dtype_named, dtype_of_proto, unpack
from slide_deploy.validators._mil.program import Constant, TensorType

__all__ = ["ReadBlob", "constant", "tensor_type"]

# File name, offset of the record, element type and shape -> the tensor.
ReadBlob = Callable[[str, int, str, tuple[int, ...]], Array]

# The types whose immediate values are lists of numbers; the others are raw bytes.
_FIELDS = {
    "bool": "bools",
    "string": "strings",
    "fp32": "floats",
    "fp64": "doubles",
    "int16": "ints",
    "uint16": "ints",
    "int32": "ints",
    "int64": "longInts",
    "uint64": "longInts",
}


def tensor_type(message: Any, name: str) -> TensorType:
    """The type of a MIL ValueType; for a state, the type of its tensor.

    A list is read as a tensor with one axis more. That axis is of unknown size: the length that
    a package declares is the one the list begins with.

    Raises:
        ArtifactError: it is a tuple, or a dictionary that is not a classifier's.
    """
    kind = message.WhichOneof("type")
    if kind == "listType":
        element = tensor_type(message.listType.type, f"{name}, listType")
        return TensorType(element.dtype, None if element.shape is None else (None, *element.shape))
    if kind == "dictionaryType":
        return _dictionary_type(message.dictionaryType, name)
    if kind == "stateType":
        return tensor_type(message.stateType.wrappedType, name)
    if kind != "tensorType":
        raise ArtifactError(f"{name}: a MIL value of {kind or 'no type'} is not supported")
    tensor = message.tensorType
    dtype = dtype_of_proto(tensor.dataType).name
    if tensor.rank == -1 or any(d.unknown.variadic for d in tensor.dimensions):
        return TensorType(dtype, None)
    if tensor.rank != len(tensor.dimensions):
        raise ArtifactError(f"{name}: rank {tensor.rank} but {len(tensor.dimensions)} dimensions")
    return TensorType(dtype, tuple(_dimension(d) for d in tensor.dimensions))


def constant(message: Any, name: str, read_blob: ReadBlob) -> Constant:
    """A MIL Value, which is immediate or in a weight file."""
    type_ = _list_type(message, name) or tensor_type(message.type, name)
    if type_.shape is None or None in type_.shape:
        raise ArtifactError(f"{name}: a constant of unknown shape")
    shape = tuple(int(size or 0) for size in type_.shape)
    kind = message.WhichOneof("value")
    if kind == "blobFileValue":
        blob = message.blobFileValue
        data = read_blob(blob.fileName, blob.offset, type_.dtype, shape)
    elif kind == "immediateValue" and message.immediateValue.WhichOneof("value") == "tensor":
        data = _immediate(message.immediateValue.tensor, type_.dtype, shape, name)
    elif kind == "immediateValue" and message.immediateValue.WhichOneof("value") == "list":
        parts = [constant(v, name, read_blob).data for v in message.immediateValue.list.values]
        data = np.array(parts, dtype_named(type_.dtype).numpy).reshape(shape)
    else:
        raise ArtifactError(f"{name}: a constant that is neither a tensor nor a weight")
    data.flags.writeable = False
    return Constant(type_, data)


def _dictionary_type(message: Any, name: str) -> TensorType:
    key, value = (tensor_type(m, name).dtype for m in (message.keyType, message.valueType))
    dtype = f"dictionary<{key}, {value}>"
    dtype_named(dtype)
    return TensorType(dtype, None)


def _list_type(message: Any, name: str) -> TensorType | None:
    """The type of an immediate list of scalars, such as class names, which is read as a vector."""
    if message.type.WhichOneof("type") != "listType":
        return None
    element = tensor_type(message.type.listType.type, name)
    count = _dimension(message.type.listType.length)
    if element.shape != () or count is None:
        raise ArtifactError(f"{name}: a list without a known number of scalars")
    if len(message.immediateValue.list.values) != count:
        raise ArtifactError(f"{name}: a list without {count} values")
    return TensorType(element.dtype, (count,))


def _dimension(message: Any) -> int | None:
    return message.constant.size if message.WhichOneof("dimension") == "constant" else None


def _immediate(message: Any, dtype: str, shape: tuple[int, ...], name: str) -> Array:
    field = message.WhichOneof("value")
    wanted, count = dtype_named(dtype), prod(shape)
    if field is None:
        values: Any = []
    elif field == "bytes" and dtype != "string":
        return unpack(message.bytes.values, wanted, count).reshape(shape)
    elif field == _FIELDS.get(dtype):
        values = list(getattr(message, field).values)
    else:
        raise ArtifactError(f"{name}: an immediate {dtype} stored as {field}")
    if len(values) != count:
        raise ArtifactError(f"{name}: {len(values)} immediate values for shape {list(shape)}")
    try:
        return np.array(values, wanted.numpy).reshape(shape)
    except OverflowError as error:
        raise ArtifactError(f"{name}: {error}") from error
