"""float16 values, stored as float32 because numpy's conversions are slow."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from slide_deploy.validators._mil.dtypes import Array

__all__ = ["CHUNK", "Half", "round_chunk", "rounded", "widened"]

_HALF, _SINGLE = np.dtype(np.float16), np.dtype(np.float32)
# Few enough to stay in the cache.
CHUNK = 1 << 16
# Scalars as arrays, which numpy takes as they are.
# The bits of a float32 that hold its sign, and its exponent; the latter alone are a power of two.
_SIGN, _EXPONENT = np.array(-(2**31), np.int32), np.array(0x7F800000, np.int32)
# From 2^15 on float16 numbers end in infinity.
_NEAR_INFINITY = 2.0**15
# Below 2^-14 float16 numbers are equally far from each other.
_SMALLEST = np.full(CHUNK, 2**-14, _SINGLE)
# This many times a power of two, float32 numbers are as far from each other as float16 numbers are
# at that power.
_COARSE = np.array(1.5 * 2**13, _SINGLE)
# -0 and negative numbers that are rounded to it have smaller bits, as integers with a sign.
_SMALLEST_NEGATIVE = int(np.float32(-(2**-24)).view(np.int32))


@dataclass(frozen=True, eq=False)
class Half:
    """A float16 tensor; `wide` holds its elements as float32."""

    wide: Array

    @cached_property
    def data(self) -> Array:
        """The tensor itself, float16."""
        return self.wide.astype(_HALF)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Always float16."""
        return _HALF

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.wide.shape


def widened(array: Array) -> Array:
    """float16 as float32; other tensors are not changed."""
    return array.astype(_SINGLE) if array.dtype == _HALF else array


def rounded(array: Array, in_place: bool = False) -> Array:
    """float32 rounded to the nearest float16 numbers, ties to even, stored as float32."""
    x = np.ascontiguousarray(array).reshape(-1)
    result = x if in_place or not np.may_share_memory(x, array) else np.empty_like(x)
    buffer = np.empty(min(x.size, CHUNK), _SINGLE)
    for start in range(0, x.size, CHUNK):
        part = x[start : start + CHUNK]
        round_chunk(part, buffer[: part.size], result[start : start + CHUNK])
    return result.reshape(array.shape)


def round_chunk(x: Array, coarse: Array, out: Array) -> None:
    """Round a vector of at most CHUNK numbers, perhaps onto itself; `coarse` is a buffer.

    Adding a large number rounds as float32 does there. Near infinity numpy converts, more slowly.
    """
    bits = x.view(np.int32)
    np.bitwise_and(bits, _EXPONENT, coarse.view(np.int32))
    if not np.maximum.reduce(coarse) < _NEAR_INFINITY:
        with np.errstate(over="ignore", invalid="ignore"):
            out[:] = x.astype(_HALF)
        return
    np.maximum(coarse, _SMALLEST[: x.size], coarse)
    np.multiply(coarse, _COARSE, coarse)
    # The sum would make +0 of them.
    signs = None
    if np.minimum.reduce(bits) < _SMALLEST_NEGATIVE:
        signs = np.bitwise_and(bits, _SIGN)
    np.add(x, coarse, out)
    np.subtract(out, coarse, out)
    if signs is not None:
        np.bitwise_or(out.view(np.int32), signs, out.view(np.int32))
