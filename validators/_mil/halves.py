"""float16 values, stored as float32 because numpy's conversions are slow."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from slide_deploy.validators._mil.dtypes import Array

__all__ = ["Half", "rounded", "widened"]

_HALF, _SINGLE = np.dtype(np.float16), np.dtype(np.float32)
# Few enough to stay in the cache.
_CHUNK = 1 << 15
# The bits of a float32 that hold its exponent, alone they are a power of two.
_EXPONENT = np.int32(0x7F800000)
# From 2^15 on float16 numbers end in infinity, below 2^-14 they are equally far from each other.
_NEAR_INFINITY, _SMALLEST = np.float32(2**15), np.float32(2**-14)
# Of the distance of float16 numbers to the power of two below them.
_STEP = np.float32(2**-10)


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
    steps = np.empty(min(x.size, _CHUNK), _SINGLE)
    for start in range(0, x.size, _CHUNK):
        part = x[start : start + _CHUNK]
        _round(part, steps[: part.size], result[start : start + _CHUNK])
    return result.reshape(array.shape)


def _round(x: Array, step: Array, out: Array) -> None:
    """Round a vector, perhaps onto itself; `step` gets the distance of float16 numbers there.

    A number is so many steps, rounded to a whole one. Near infinity numpy converts, more slowly.
    """
    np.bitwise_and(x.view(np.int32), _EXPONENT, out=step.view(np.int32))
    if not step.max() < _NEAR_INFINITY:
        with np.errstate(over="ignore", invalid="ignore"):
            out[:] = x.astype(_HALF)
        return
    np.maximum(step, _SMALLEST, out=step)
    np.multiply(step, _STEP, out=step)
    np.divide(x, step, out=out)
    np.rint(out, out=out)
    np.multiply(out, step, out=out)
