"""Constants, fills, ranges, one-hot vectors and casts."""

from __future__ import annotations

import numpy as np

from slide_deploy.validators._mil.dtypes import Array, dtype_named
from slide_deploy.validators._mil.ops.registry import Ints, operation
from slide_deploy.validators._mil.program import Unsupported

__all__ = ["cast", "const", "fill", "fill_like", "identity", "one_hot", "range_1d", "shape_of"]

_ZERO = np.zeros((), np.float32)


@operation("const", widens=False)
def const(val: Array) -> Array:
    """The value itself."""
    return val


@operation("identity", moves=True)
def identity(x: Array) -> Array:
    """The same value under another name."""
    return x


@operation("cast", widens=False)
def cast(x: Array, dtype: str) -> Array:
    """Another element type; from float to integer rounded towards zero; non-zero is true."""
    wanted = dtype_named(dtype).numpy
    if wanted.kind in "iu" and x.dtype.kind == "f":
        limits = np.iinfo(wanted)
        whole = np.trunc(x.astype(np.float64))
        # Out of range (or not a number) is undefined, and differs between machines.
        if not np.all((whole >= limits.min) & (whole <= limits.max)):
            raise Unsupported(f"a value outside the range of {dtype}")
        return whole.astype(wanted)
    return x.astype(wanted, copy=False)


@operation("fill", widens=False)
def fill(shape: Ints, value: Array = _ZERO) -> Array:
    """A tensor of one value."""
    return np.full(shape, value)


@operation("fill_like", widens=False)
def fill_like(ref_tensor: Array, value: Array = _ZERO) -> Array:
    """A tensor of one value, shaped like another."""
    return np.full(ref_tensor.shape, value)


@operation("shape", widens=False)
def shape_of(x: Array) -> Array:
    """The shape as a vector of int32."""
    return np.array(x.shape, np.int32)


@operation("range_1d", widens=False)
def range_1d(start: Array, end: Array, step: Array) -> Array:
    """start, start + step, ... up to, not including, end."""
    count = max(0, int(np.ceil((float(end) - float(start)) / float(step))))
    wide = np.float32 if start.dtype == np.float16 else start.dtype
    result: Array = (start.astype(wide) + np.arange(count, dtype=wide) * step).astype(start.dtype)
    return result


@operation("one_hot", widens=False)
def one_hot(
    indices: Array,
    one_hot_vector_size: int,
    axis: int = -1,
    on_value: Array | None = None,
    off_value: Array | None = None,
) -> Array:
    """`on_value` where the new axis equals the index, `off_value` elsewhere."""
    if indices.size and (indices.min() < 0 or indices.max() >= one_hot_vector_size):
        raise ValueError(f"an index outside 0..{one_hot_vector_size - 1}")
    on = np.array(1, np.int32) if on_value is None else on_value
    off = np.zeros((), on.dtype) if off_value is None else off_value
    hot = indices[..., None] == np.arange(one_hot_vector_size, dtype=indices.dtype)
    return np.moveaxis(np.where(hot, on, off), -1, axis)
