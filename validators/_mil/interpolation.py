"""Smooth functions of one variable from tables, much faster than in float64 by scipy."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from slide_deploy.validators._mil.dtypes import Array

__all__ = ["Function", "interpolated"]

# Takes float32 or float64 and gives the same; 0 at 0, and smooth.
Function = Callable[[Array], Array]

# The table goes from -_LARGEST to _LARGEST in steps of 1 / _DENSITY.
_LARGEST, _DENSITY = 12, np.float32(1024)
# The point 0 of the table, on top of a number whose last 16 bits are zero.
_MIDDLE, _COUNT = np.float32(1.5 * 2**23) + _LARGEST * _DENSITY, np.int32(0xFFFF)
# Few enough that all buffers stay in the cache.
_CHUNK = 1 << 15


def interpolated(function: Function, x: Array) -> Array:
    """function(x) for x in float32, to within three units in the last place.

    Between -12 and 12 by parabolas; the function itself, in float64, for a chunk with others.
    """
    if x.dtype != np.float32:
        return function(x)
    flat = np.ascontiguousarray(x).reshape(-1)
    result = np.empty_like(flat)
    size = min(flat.size, _CHUNK)
    buffers = np.empty((3, size), np.float32)
    index = np.empty(size, np.intp)
    for start in range(0, flat.size, _CHUNK):
        part, out = flat[start : start + _CHUNK], result[start : start + _CHUNK]
        if part.min() > -_LARGEST and part.max() < _LARGEST:
            _parabolas(_table(function), part, out, buffers[:, : part.size], index[: part.size])
        else:
            out[:] = function(part.astype(np.float64))
    return result.reshape(x.shape)


@cache
def _table(function: Function) -> Array:
    """[3, n] coefficients of 1, r and r^2, where r is the distance to the point in steps.

    Each parabola meets the function at its point and half a step before and after it.
    """
    points = np.arange(-_LARGEST * _DENSITY, _LARGEST * _DENSITY + 1, dtype=np.float64)
    here, before, after = (function((points + r) / _DENSITY) for r in (0, -0.5, 0.5))
    here[points == 0] = -0.0  # -0 plus -0 is -0, all other sums are those with 0
    coefficients = [here, after - before, 2 * (after - 2 * here + before)]
    return np.array(coefficients, np.float32)


def _parabolas(table: Array, x: Array, out: Array, buffers: Array, index: Array) -> None:
    steps, nearest, taken = buffers
    np.multiply(x, _DENSITY, out=steps)
    # Numbers near _MIDDLE are whole, and the last bits of their representation count from it.
    np.add(steps, _MIDDLE, out=nearest)
    np.bitwise_and(nearest.view(np.int32), _COUNT, out=taken.view(np.int32))
    index[:] = taken.view(np.int32)
    nearest -= _MIDDLE
    steps -= nearest
    # Any mode but "raise" spares a check; no index is out of range.
    constant, linear, square = table
    np.take(square, index, out=out, mode="wrap")
    out *= steps
    out += np.take(linear, index, out=taken, mode="wrap")
    out *= steps
    out += np.take(constant, index, out=taken, mode="wrap")
