"""Convolution and its transpose over one, two or three spatial axes."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from slide_deploy.validators._mil.dtypes import Array
from slide_deploy.validators._mil.ops.registry import Exact, Ints, operation
from slide_deploy.validators._mil.ops.windows import (
    on_last,
    pad_spatial,
    resolve_pads,
    spatial,
    taps,
)
from slide_deploy.validators._mil.program import Unsupported

__all__ = ["conv", "conv_transpose"]

# Elements of input columns that are gathered at once: enough for BLAS, and within the cache.
_COLUMNS = 1 << 20


@operation("conv", mixes=("weight", "bias"))
def conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Array | Exact:
    """Cross-correlation of x [n, c, *d] with weight [c_out, c / groups, *k]."""
    rank = x.ndim - 2
    if not 1 <= rank <= 3 or weight.ndim != x.ndim:
        raise ValueError(f"weight {weight.shape} for x {x.shape}")
    if weight.shape[1] * groups != x.shape[1] or weight.shape[0] % groups:
        raise ValueError(f"weight {weight.shape} in {groups} groups for x {x.shape}")
    kernel = weight.shape[2:]
    strides = spatial(strides, rank, 1, "strides")
    dilations = spatial(dilations, rank, 1, "dilations")
    windows = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    x = pad_spatial(x, resolve_pads(pad_type, pad, x.shape[2:], windows, strides), 0)
    outputs = tuple(
        (size - window) // stride + 1
        for size, window, stride in zip(x.shape[2:], windows, strides, strict=True)
    )
    if min(outputs) < 1:
        raise ValueError(f"a window of {list(windows)} does not fit {list(x.shape[2:])}")
    depthwise = weight.shape[1] == 1 and weight.shape[0] == groups
    if depthwise and bias is None:
        shifted = _shifted(x, weight, outputs, strides, dilations)
        if shifted is not None:
            return Exact(shifted)
    if prod(kernel) == 1:
        result = _pointwise(x[on_last(slice(None, None, s) for s in strides)], weight, groups)
    elif depthwise:
        result = _depthwise(x, weight, outputs, strides, dilations)
    else:
        result = _by_columns(x, weight, outputs, strides, dilations, groups)
    return _biased(result, bias)


@operation("conv_transpose", mixes=("weight", "bias"))
def conv_transpose(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    pad: Ints | None = None,
    output_shape: Ints | None = None,
    pad_type: str = "valid",
    strides: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Array:
    """The adjoint of `conv`: x [n, c, *d] spread by weight [c, c_out / groups, *k]."""
    rank = x.ndim - 2
    if not 1 <= rank <= 3 or weight.ndim != x.ndim:
        raise ValueError(f"weight {weight.shape} for x {x.shape}")
    if weight.shape[0] != x.shape[1] or x.shape[1] % groups:
        raise ValueError(f"weight {weight.shape} in {groups} groups for x {x.shape}")
    kernel, inputs = weight.shape[2:], x.shape[2:]
    strides = spatial(strides, rank, 1, "strides")
    dilations = spatial(dilations, rank, 1, "dilations")
    full = tuple(
        (size - 1) * stride + (k - 1) * dilation + 1
        for size, stride, k, dilation in zip(inputs, strides, kernel, dilations, strict=True)
    )
    count, channels = x.shape[0], weight.shape[1] * groups
    filters = weight.reshape(groups, weight.shape[0] // groups, -1).swapaxes(1, 2)
    columns = np.matmul(filters, x.reshape(count, groups, x.shape[1] // groups, -1))
    # [*k, n, c, *d]: the kernel first, to be indexed by its positions.
    columns = columns.reshape(count, channels, *kernel, *inputs)
    columns = np.moveaxis(columns, range(2, 2 + rank), range(rank))
    result = np.zeros((count, channels, *full), x.dtype)
    for tap, index in taps(kernel, inputs, strides, dilations):
        result[index] += columns[tap]
    result = _cropped(result, pad_type, pad, inputs, strides)
    if output_shape is not None and result.shape != output_shape:
        raise Unsupported(f"output_shape {list(output_shape)} asks for rows beyond the input's")
    return _biased(result, bias)


def _pointwise(x: Array, weight: Array, groups: int) -> Array:
    """A 1 x 1 kernel: one matrix product per image and group."""
    count, channels, *sizes = x.shape
    last = np.moveaxis(x, 1, -1)
    if last.flags.c_contiguous:  # BLAS takes transposed matrices as they are
        pixels = last.reshape(count, -1, groups, channels // groups).transpose(0, 2, 3, 1)
    else:
        pixels = x.reshape(count, groups, channels // groups, -1)
    result: Array = np.matmul(weight.reshape(groups, -1, weight.shape[1]), pixels)
    return result.reshape(count, weight.shape[0], *sizes)


def _shifted(
    x: Array, weight: Array, outputs: Ints, strides: Ints, dilations: Ints
) -> Array | None:
    """The result, if each kernel is one at the same position and zero elsewhere."""
    ones = [bool((values == 1).all()) for values in weight.reshape(len(weight), -1).T]
    if ones.count(True) != 1 or np.count_nonzero(weight) != len(weight):
        return None
    if not np.isfinite(x).all():  # infinity times zero is not zero
        return None
    _, index = taps(weight.shape[2:], outputs, strides, dilations)[ones.index(True)]
    shifted: Array = x[index].copy()
    return shifted


def _depthwise(x: Array, weight: Array, outputs: Ints, strides: Ints, dilations: Ints) -> Array:
    """One filter per channel: a weighted sum of shifted inputs, without gathering."""
    result = np.zeros((*x.shape[:2], *outputs), x.dtype)
    product = np.empty_like(result[0])
    filters = np.moveaxis(weight[:, 0], 0, -1).reshape(*weight.shape[2:], -1, *[1] * len(outputs))
    for tap, index in taps(weight.shape[2:], outputs, strides, dilations):
        for image, total in zip(x, result, strict=True):
            np.multiply(image[index], filters[tap], out=product)
            total += product
    return result


def _by_columns(
    x: Array, weight: Array, outputs: Ints, strides: Ints, dilations: Ints, groups: int
) -> Array:
    """Gather each window into a column, a few rows of windows at a time, and multiply."""
    rank, kernel = len(outputs), weight.shape[2:]
    depth = weight.shape[1] * prod(kernel)
    filters = weight.reshape(groups, -1, depth)
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    axes: Any = tuple(range(2, 2 + rank))  # numpy's types know one axis only
    view = sliding_window_view(x, reach, axes)
    view = view[on_last(slice(None, None, step) for step in (*strides, *dilations))]
    # [n, c, *out, *k] -> [n, c, *k, *out]: a column is a window, and out is innermost.
    view = np.moveaxis(view, range(2 + rank, 2 + 2 * rank), range(2, 2 + rank))
    result = np.empty((x.shape[0], groups, filters.shape[1], *outputs), x.dtype)
    rows = max(1, _COLUMNS // (groups * depth * prod(outputs[1:])))
    for image, total in zip(view, result, strict=True):
        for start in range(0, outputs[0], rows):
            some = slice(start, start + rows)
            columns = image[on_last((some, *[slice(None)] * (rank - 1)))]
            product = np.matmul(filters, columns.reshape(groups, depth, -1))
            total[:, :, some] = product.reshape(*product.shape[:2], -1, *outputs[1:])
    return result.reshape(x.shape[0], weight.shape[0], *outputs)


def _cropped(result: Array, pad_type: str, pad: Ints | None, inputs: Ints, strides: Ints) -> Array:
    """A transposed convolution without its padding."""
    if pad_type != "same":
        edges = resolve_pads(pad_type, pad, inputs, strides, strides)
    else:
        extra = [
            full - size * stride
            for full, size, stride in zip(result.shape[2:], inputs, strides, strict=True)
        ]
        # Which side loses the odd row is not documented.
        if any(e % 2 or e < 0 for e in extra) or (pad is not None and any(pad)):
            raise Unsupported(f"pad_type 'same' cannot take {extra} rows off evenly")
        edges = tuple((e // 2, e // 2) for e in extra)
    kept = (slice(b, n - a) for n, (b, a) in zip(result.shape[2:], edges, strict=True))
    cropped: Array = result[on_last(kept)]
    return cropped


def _biased(result: Array, bias: Array | None) -> Array:
    if bias is not None:
        if bias.shape != result.shape[1:2]:
            raise ValueError(f"bias {bias.shape} for {result.shape[1]} channels")
        result += bias.reshape(-1, *[1] * (result.ndim - 2))
    return result
