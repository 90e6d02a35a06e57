"""Reductions; floating sums are accumulated in float64 and rounded once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from slide_deploy.validators._mil.dtypes import Array, dtype_named
from slide_deploy.validators._mil.ops.registry import Ints, operation
from slide_deploy.validators._mil.program import Unsupported

__all__ = ["argsort", "cumsum", "reduce_argmax", "reduce_argmin", "topk"]

# x, axes, keep_dims -> result, possibly of a wider type than x.
Reduce = Callable[[Array, Ints, bool], Any]


def _wide(x: Array) -> Array:
    return x.astype(np.float64) if x.dtype.kind == "f" else x


def _sum(x: Array, axes: Ints, keep: bool) -> Any:
    return x.sum(axes, dtype=np.float64 if x.dtype.kind == "f" else None, keepdims=keep)


def _log_sum_exp(x: Array, axes: Ints, keep: bool) -> Any:
    largest = x.max(axes, keepdims=True)
    # An infinite maximum is the result; computing on would give inf - inf.
    largest = np.where(np.isfinite(largest), largest, largest.dtype.type(0))
    logs = np.log(_sum(np.exp(x - largest), axes, True)) + largest
    return logs if keep else logs.squeeze(axes)


_FLOAT: dict[str, Reduce] = {
    "reduce_l2_norm": lambda x, axes, keep: np.sqrt(_sum(np.square(_wide(x)), axes, keep)),
    "reduce_log_sum": lambda x, axes, keep: np.log(_sum(x, axes, keep)),
    "reduce_log_sum_exp": _log_sum_exp,
    "reduce_mean": lambda x, axes, keep: x.mean(axes, dtype=np.float64, keepdims=keep),
}

_ANY: dict[str, Reduce] = {
    "reduce_l1_norm": lambda x, axes, keep: _sum(np.abs(x), axes, keep),
    "reduce_max": lambda x, axes, keep: x.max(axes, keepdims=keep),
    "reduce_min": lambda x, axes, keep: x.min(axes, keepdims=keep),
    "reduce_prod": lambda x, axes, keep: _wide(x).prod(axes, keepdims=keep),
    "reduce_sum": _sum,
    "reduce_sum_square": lambda x, axes, keep: _sum(np.square(_wide(x)), axes, keep),
}


def _reduction(reduce: Reduce, floats_only: bool) -> Callable[..., Array]:
    def apply(x: Array, axes: Ints | None = None, keep_dims: bool = False) -> Array:
        # How MIL rounds these for integers is not documented.
        if floats_only and x.dtype.kind != "f":
            raise Unsupported(f"a reduction of {x.dtype}")
        over = tuple(range(x.ndim)) if axes is None else axes
        return np.asarray(reduce(x, over, keep_dims)).astype(x.dtype)

    return apply


for _name, _reduce in _FLOAT.items():
    operation(_name)(_reduction(_reduce, True))
for _name, _reduce in _ANY.items():
    operation(_name)(_reduction(_reduce, False))


@operation("reduce_argmax")
def reduce_argmax(
    x: Array, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32"
) -> Array:
    """The index of the first largest value."""
    return _position(x.argmax(axis, keepdims=keep_dims), output_dtype)


@operation("reduce_argmin")
def reduce_argmin(
    x: Array, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32"
) -> Array:
    """The index of the first smallest value."""
    return _position(x.argmin(axis, keepdims=keep_dims), output_dtype)


@operation("argsort")
def argsort(x: Array, axis: int = -1, ascending: bool = False) -> Array:
    """The indices that sort the values; the sort is stable."""
    return _order(x, axis, ascending).astype(np.int32)


@operation("topk")
def topk(
    x: Array,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> Array | tuple[Array, Array]:
    """The k largest (or smallest) values and their indices; all of them for k = -1."""
    del sort  # Without it the order is unspecified, so the result may be sorted.
    count = x.shape[axis] if k == -1 else k
    if not 0 < count <= x.shape[axis]:
        raise ValueError(f"k = {k} of {x.shape[axis]}")
    order = np.take(_order(x, axis, ascending), range(count), axis)
    values = np.take_along_axis(x, order, axis)
    return (values, _position(order, output_indices_dtype)) if return_indices else values


@operation("cumsum")
def cumsum(x: Array, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Array:
    """Cumulative sums; with `exclusive`, each excludes its own element."""
    ordered = np.flip(x, axis) if reverse else x
    sums = np.cumsum(_wide(ordered), axis)
    if exclusive:
        sums = np.roll(sums, 1, axis)
        np.moveaxis(sums, axis, 0)[:1] = 0
    return (np.flip(sums, axis) if reverse else sums).astype(x.dtype)


def _order(x: Array, axis: int, ascending: bool) -> Array:
    if ascending:
        return np.argsort(x, axis, kind="stable")
    # Reversing before and after the sort keeps it stable; -x would overflow for integers.
    last = x.shape[axis] - 1
    order: Array = last - np.flip(np.argsort(np.flip(x, axis), axis, kind="stable"), axis)
    return order


def _position(index: Array, dtype: str) -> Array:
    if dtype not in ("int32", "uint16"):
        raise ValueError(f"indices of type {dtype!r}")
    wanted = dtype_named(dtype).numpy
    if np.max(index, initial=0) > np.iinfo(wanted).max:
        raise ValueError(f"an index beyond {dtype}")
    return index.astype(wanted)
