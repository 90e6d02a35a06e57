"""float16 values, stored as float32 because numpy's conversions are slow."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from slide_deploy.validators._mil.dtypes import Array

__all__ = ["Half", "rounded", "widened"]

_HALF, _SINGLE = np.dtype(np.float16), np.dtype(np.float32)
# A block of elements that fits the cache.
_CHUNK = 1 << 14
# Bits of float32: its sign, its exponent, those of 2^15 and of 2^-14, and what makes a power of
# two 1.5 * 2^13 times as large.
_SIGN = np.int32(-(1 << 31))
_EXPONENT = np.int32(0x7F800000)
_NEAR_INFINITY = np.int32((127 + 15) << 23)
_SMALLEST = np.int32((127 - 14) << 23)
_SHIFT = np.int32((13 << 23) + (1 << 22))


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
    shifts, signs = np.empty((2, min(x.size, _CHUNK)), np.int32)
    for start in range(0, x.size, _CHUNK):
        part = x[start : start + _CHUNK]
        count = part.size
        _round(part, shifts[:count], signs[:count], result[start : start + _CHUNK])
    return result.reshape(array.shape)


def _round(x: Array, shifts: Array, signs: Array, out: Array) -> None:
    """Round a vector, possibly in place.

    Adding and subtracting 1.5 * 2^13 times the power of two in a number leaves 11 bits of it, the
    precision of float16. The power is at least 2^-14, below which float16 numbers are equidistant.
    From 2^15 on, where the result may be infinite, numpy converts.
    """
    np.bitwise_and(x.view(np.int32), _EXPONENT, out=shifts)
    if shifts.max() >= _NEAR_INFINITY:
        with np.errstate(over="ignore", invalid="ignore"):
            out[:] = x.astype(_HALF)
        return
    np.bitwise_and(x.view(np.int32), _SIGN, out=signs)
    np.maximum(shifts, _SMALLEST, out=shifts)
    np.add(shifts, _SHIFT, out=shifts)
    shift = shifts.view(_SINGLE)
    np.add(x, shift, out=out)
    np.subtract(out, shift, out=out)
    # Sums have no negative zero.
    bits = out.view(np.int32)
    np.bitwise_or(bits, signs, out=bits)
