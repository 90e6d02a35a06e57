"""Functions of one float16 number, which has 65,536 values: one result for each, computed once."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from slide_deploy.validators._mil.dtypes import Array
from slide_deploy.validators._mil.halves import CHUNK, rounded, widened

__all__ = ["WORTH_A_TABLE", "looked_up"]

# Elements from which on the table takes less time than the function.
WORTH_A_TABLE = 1 << 17
# Bits of a float32 that are zero where it holds a float16 number.
_UNUSED = np.array(13, np.uint32)


def looked_up(function: Callable[..., Any], x: Array, options: dict[str, Any]) -> Array:
    """function(x=x, **options), rounded to float16; `x` holds float16 numbers as float32.

    The function must compute each element from the one at its place.
    """
    table = _table(function, tuple(sorted(options.items())))
    bits = np.ascontiguousarray(x).reshape(-1).view(np.uint32)
    result = np.empty(bits.size, np.float32)
    size = min(bits.size, CHUNK)
    places, index = np.empty(size, np.uint32), np.empty(size, np.intp)
    for start in range(0, bits.size, CHUNK):
        part, out = bits[start : start + CHUNK], result[start : start + CHUNK]
        np.right_shift(part, _UNUSED, out=places[: part.size])
        index[: part.size] = places[: part.size]
        # Any mode but "raise" spares a check; no index is out of range.
        np.take(table, index[: part.size], out=out, mode="wrap")
    return result.reshape(x.shape)


@lru_cache(maxsize=16)
def _table(function: Callable[..., Any], options: tuple[tuple[str, Any], ...]) -> Array:
    """The results by the used bits of float32; most of the table is never touched."""
    halves = widened(np.arange(1 << 16, dtype=np.uint16).view(np.float16))
    table = np.zeros(1 << (32 - int(_UNUSED)), np.float32)
    table[halves.view(np.uint32) >> _UNUSED] = rounded(function(x=halves, **dict(options)))
    return table
