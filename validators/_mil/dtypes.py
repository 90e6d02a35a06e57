"""MIL's element types: their names, numpy storage, bit widths and codes in both file formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from slide_deploy.errors import ArtifactError

__all__ = ["DTYPES", "Array", "DType", "dtype_named", "dtype_of_proto", "unpack"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class DType:
    """One element type; `proto` and `blob` are its codes in MIL.proto and in the weight file."""

    name: str
    numpy: np.dtype[Any]
    bits: int
    proto: int | None
    blob: int | None = None


DTYPES = {
    dtype.name: dtype
    for dtype in (
        DType("bool", np.dtype(np.bool_), 8, 1),
        DType("string", np.dtype(np.str_), 0, 2),
        DType("fp16", np.dtype("<f2"), 16, 10, 1),
        DType("fp32", np.dtype("<f4"), 32, 11, 2),
        DType("fp64", np.dtype("<f8"), 64, 12),
        DType("int8", np.dtype("i1"), 8, 21, 4),
        DType("int16", np.dtype("<i2"), 16, 22, 6),
        DType("int32", np.dtype("<i4"), 32, 23, 14),
        DType("int64", np.dtype("<i8"), 64, 24),
        DType("int4", np.dtype("i1"), 4, 25, 8),
        DType("uint8", np.dtype("u1"), 8, 31, 3),
        DType("uint16", np.dtype("<u2"), 16, 32, 7),
        DType("uint32", np.dtype("<u4"), 32, 33, 15),
        DType("uint64", np.dtype("<u8"), 64, 34),
        DType("uint4", np.dtype("u1"), 4, 35, 11),
        DType("uint2", np.dtype("u1"), 2, 36, 10),
        DType("uint1", np.dtype("u1"), 1, 37, 9),
        DType("uint6", np.dtype("u1"), 6, 38, 13),
        DType("uint3", np.dtype("u1"), 3, 39, 12),
        # The output of `classify`: an array of pairs.
        DType("dictionary<string, fp64>", np.dtype([("key", "U"), ("value", "<f8")]), 0, None),
        DType("dictionary<int64, fp64>", np.dtype([("key", "<i8"), ("value", "<f8")]), 0, None),
    )
}
_BY_PROTO = {dtype.proto: dtype for dtype in DTYPES.values() if dtype.proto is not None}


def dtype_named(name: str) -> DType:
    """The element type with this name."""
    try:
        return DTYPES[name]
    except KeyError:
        raise ArtifactError(f"unsupported MIL element type {name!r}") from None


def dtype_of_proto(code: int) -> DType:
    """The element type with this code in MIL.proto."""
    try:
        return _BY_PROTO[code]
    except KeyError:
        raise ArtifactError(f"unsupported MIL element type number {code}") from None


def unpack(raw: bytes | memoryview, dtype: DType, count: int) -> Array:
    """`count` elements from `raw`; sub-byte elements are packed from the lowest bit up."""
    if len(raw) * 8 != -(-count * dtype.bits // 8) * 8:
        raise ArtifactError(f"{len(raw)} bytes cannot hold {count} elements of {dtype.name}")
    if dtype.bits >= 8:
        return np.frombuffer(raw, dtype.numpy, count)
    bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
    places = (1 << np.arange(dtype.bits)).astype(np.uint8)
    values = bits[: count * dtype.bits].reshape(count, dtype.bits) @ places
    result: Array = values.astype(dtype.numpy)
    if dtype.numpy.kind == "i":
        result[result >= 1 << (dtype.bits - 1)] -= 1 << dtype.bits
    return result
