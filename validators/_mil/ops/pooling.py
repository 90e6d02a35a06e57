"""Average and maximum over sliding windows."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from slide_deploy.validators._mil.dtypes import Array
from slide_deploy.validators._mil.ops.registry import Ints, operation
from slide_deploy.validators._mil.ops.windows import (
    Pads,
    pad_spatial,
    resolve_pads,
    spatial,
    taps,
)
from slide_deploy.validators._mil.program import Unsupported

__all__ = ["avg_pool", "l2_pool", "max_pool"]


@operation("max_pool")
def max_pool(
    x: Array,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    ceil_mode: bool = False,
) -> Array:
    """The largest value of each window."""
    strides = spatial(strides, x.ndim - 2, 1, "strides")
    pads, outputs, _ = _geometry(x.shape[2:], kernel_sizes, strides, pad_type, pad, ceil_mode)
    return _pooled(pad_spatial(x, pads, -np.inf), np.maximum, kernel_sizes, outputs, strides)


@operation("avg_pool")
def avg_pool(
    x: Array,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> Array:
    """The mean of each window, padding counted as zeros or not at all."""
    strides = spatial(strides, x.ndim - 2, 1, "strides")
    pads, outputs, overhang = _geometry(
        x.shape[2:], kernel_sizes, strides, pad_type, pad, ceil_mode
    )
    if overhang and not exclude_padding_from_average:
        raise Unsupported("windows beyond the padding: their divisor is not documented")
    total = _pooled(pad_spatial(x, pads, 0), np.add, kernel_sizes, outputs, strides)
    if not exclude_padding_from_average:
        return total / np.float32(prod(kernel_sizes))
    inside = pad_spatial(np.ones((1, 1, *x.shape[2:]), x.dtype), pads, 0)
    return total / _pooled(inside, np.add, kernel_sizes, outputs, strides)


@operation("l2_pool")
def l2_pool(
    x: Array,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    ceil_mode: bool = False,
) -> Array:
    """The Euclidean norm of each window."""
    if x.ndim > 4:
        raise ValueError(f"x of rank {x.ndim}, not 3 or 4")
    strides = spatial(strides, x.ndim - 2, 1, "strides")
    pads, outputs, _ = _geometry(x.shape[2:], kernel_sizes, strides, pad_type, pad, ceil_mode)
    squares = np.square(pad_spatial(x, pads, 0))
    result: Array = np.sqrt(_pooled(squares, np.add, kernel_sizes, outputs, strides))
    return result


def _geometry(
    sizes: Ints, kernel: Ints, strides: Ints, pad_type: str, pad: Ints | None, ceil_mode: bool
) -> tuple[Pads, Ints, bool]:
    """Padding, output sizes, and whether ceil_mode has windows that exceed the padding."""
    spatial(kernel, len(sizes), 1, "kernel_sizes")
    pads = resolve_pads(pad_type, pad, sizes, kernel, strides)
    if not ceil_mode:
        outputs = tuple(
            (size + before + after - k) // stride + 1
            for size, k, stride, (before, after) in zip(sizes, kernel, strides, pads, strict=True)
        )
        if min(outputs) < 1:
            raise ValueError(f"a window of {list(kernel)} does not fit {list(sizes)}")
        return pads, outputs, False
    if pad_type not in ("valid", "custom") or any(before != after for before, after in pads):
        raise ValueError("ceil_mode with uneven padding")
    rounded, reached = [], []
    for size, k, stride, (before, after) in zip(sizes, kernel, strides, pads, strict=True):
        count = -(-(size + before + after - k) // stride) + 1
        # A window must begin inside the input or its left padding.
        if before and (count - 1) * stride >= size + before:
            count -= 1
        if (count - 1) * stride >= size + before:
            raise ValueError("a window wholly beyond the input")
        rounded.append(count)
        reached.append((before, max(after, (count - 1) * stride + k - size - before)))
    return tuple(reached), tuple(rounded), tuple(reached) != pads


def _pooled(
    x: Array, combine: Callable[..., Array], kernel: Ints, outputs: Ints, strides: Ints
) -> Array:
    """All elements of each window combined, by shifting the input."""
    first, *others = (index for _, index in taps(kernel, outputs, strides, (1,) * len(kernel)))
    result: Array = x[first].copy()
    for index in others:
        combine(result, x[index], out=result)
    return result
