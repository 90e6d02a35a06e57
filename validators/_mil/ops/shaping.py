"""Operations that only move elements: shapes, axes, slices, joins and padding."""

from __future__ import annotations

from math import prod

import numpy as np

from slide_deploy.validators._mil.dtypes import Array
from slide_deploy.validators._mil.ops.registry import Arrays, Bools, Ints, Note, operation

__all__ = [
    "band_part",
    "concat",
    "crop",
    "depth_to_space",
    "expand_dims",
    "flatten2d",
    "pad",
    "pixel_shuffle",
    "pixel_unshuffle",
    "reshape",
    "reshape_like",
    "reverse",
    "slice_by_index",
    "slice_by_size",
    "slice_update",
    "sliding_windows",
    "space_to_depth",
    "split",
    "squeeze",
    "stack",
    "tile",
    "transpose",
]

_IOS17 = 7


@operation("reshape", moves=True)
def reshape(x: Array, shape: Ints, opset: int) -> Array:
    """0 keeps a dimension of x; one dimension may be -1, which is inferred."""
    if min(shape, default=0) < -1:
        raise ValueError(f"shape {list(shape)}")
    if 0 in shape and x.size:
        if opset < _IOS17 and len(shape) != x.ndim:
            raise ValueError(f"a 0 in shape {list(shape)} for x of rank {x.ndim}")
        # From CoreML7 on, zeros are aligned to the last axis, and are 1 beyond the first.
        kept = (*[1] * len(shape), *x.shape)[-len(shape) :]
        shape = tuple(k if s == 0 else s for s, k in zip(shape, kept, strict=True))
    return x.reshape(shape)


@operation("reshape_like", widens=False)
def reshape_like(
    x: Array, ref_tensors: Arrays, begins: Arrays, ends: Arrays, end_masks: Arrays
) -> Array:
    """A shape concatenated from parts of other shapes."""
    shape: list[int] = []
    for reference, begin, end, mask in zip(ref_tensors, begins, ends, end_masks, strict=True):
        shape += reference.shape[int(begin) : None if bool(mask) else int(end)]
    return x.reshape(shape)


@operation("flatten2d", moves=True)
def flatten2d(x: Array, axis: int = 1) -> Array:
    """Merge the axes before `axis`, and those from it on."""
    return x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))


@operation("expand_dims", moves=True)
def expand_dims(x: Array, axes: Ints) -> Array:
    """New axes of size 1, at these positions of the result."""
    return np.expand_dims(x, axes)


@operation("squeeze", moves=True)
def squeeze(x: Array, axes: Ints | None = None) -> Array:
    """Axes of size 1 removed; other axes are kept, as in PyTorch."""
    over = range(x.ndim) if axes is None else axes
    return x.squeeze(tuple(a for a in over if x.shape[a] == 1))


@operation("transpose", moves=True)
def transpose(x: Array, perm: Ints) -> Array:
    """The axes in another order."""
    return x.transpose(perm)


@operation("reverse", moves=True)
def reverse(x: Array, axes: Ints | None = None) -> Array:
    """Reversed along some axes, or all."""
    return np.flip(x, axes)


@operation("tile", moves=True)
def tile(x: Array, reps: Ints, note: Note) -> Array:
    """x repeated along each axis; nothing if repeated 0 times, as in Apple's tests."""
    if len(reps) != x.ndim or min(reps, default=1) < 0:
        raise ValueError(f"reps {list(reps)} for x of rank {x.ndim}")
    if 0 in reps:
        note("a tensor repeated 0 times is empty")
    return np.tile(x, reps)


@operation("concat", widens=False)
def concat(values: Arrays, axis: int, interleave: bool = False) -> Array:
    """The values concatenated or interleaved along an axis; scalars become a vector."""
    if len({value.dtype for value in values}) != 1:
        raise ValueError(f"values of types {[str(value.dtype) for value in values]}")
    if all(value.ndim == 0 for value in values):
        return np.array(values)
    if not interleave:
        return np.concatenate(values, axis)
    after = axis % values[0].ndim + 1
    shape = list(values[0].shape)
    shape[axis] *= len(values)
    return np.stack(values, after).reshape(shape)


@operation("stack", widens=False)
def stack(values: Arrays, axis: int) -> Array:
    """The values along a new axis."""
    if len({value.dtype for value in values}) != 1:
        raise ValueError(f"values of types {[str(value.dtype) for value in values]}")
    return np.stack(values, axis)


@operation("split", moves=True)
def split(
    x: Array, axis: int, num_splits: int | None = None, split_sizes: Ints | None = None
) -> Arrays:
    """x divided into parts of these sizes, or into equal ones."""
    size = x.shape[axis]
    if split_sizes is None:
        if num_splits is None or num_splits < 1 or size % num_splits:
            raise ValueError(f"{size} into {num_splits} equal parts")
        split_sizes = (size // num_splits,) * num_splits
    if sum(split_sizes) != size or num_splits not in (None, len(split_sizes)):
        raise ValueError(f"{size} into {num_splits or ''} parts {list(split_sizes)}")
    return tuple(np.split(x, np.cumsum(split_sizes)[:-1], axis))


@operation("slice_by_index", moves=True)
def slice_by_index(
    x: Array,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Array:
    """x[begin:end:stride] on every axis; masks omit a bound or select one element."""
    return x[_index(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)]


@operation("slice_update", widens=False)
def slice_update(
    x: Array,
    update: Array,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Array:
    """x with the slice of `slice_by_index` replaced."""
    result = x.copy()
    index = _index(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    if result[index].shape != update.shape or x.dtype != update.dtype:
        raise ValueError(f"an update of shape {update.shape} for {result[index].shape}")
    result[index] = update
    return result


@operation("slice_by_size", moves=True)
def slice_by_size(x: Array, begin: Ints, size: Ints) -> Array:
    """`size` elements from `begin` on every axis; -1 means all remaining ones."""
    if len(begin) != x.ndim or len(size) != x.ndim:
        raise ValueError(f"begin {list(begin)}, size {list(size)} for x of rank {x.ndim}")
    slices = []
    for b, s, n in zip(begin, size, x.shape, strict=True):
        first = b + n if b < 0 else b
        last = n if s == -1 else first + s
        if not 0 <= first <= last <= n:
            raise ValueError(f"{s} elements from {b} of {n}")
        slices.append(slice(first, last))
    return x[tuple(slices)]


@operation("crop", moves=True)
def crop(x: Array, crop_height: Ints, crop_width: Ints) -> Array:
    """The last two axes without their margins."""
    (top, bottom), (left, right) = crop_height, crop_width
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


@operation("sliding_windows", moves=True)
def sliding_windows(x: Array, axis: int, size: int, stride: int = 1) -> Array:
    """All windows along an axis, each on a new axis after it."""
    axis %= x.ndim
    windows = np.lib.stride_tricks.sliding_window_view(x, size, axis)
    windows = windows[(*[slice(None)] * axis, slice(None, None, stride))]
    return np.moveaxis(windows, -1, axis + 1)


@operation("pad", moves=True)
def pad(x: Array, pad: Ints, mode: str = "constant", constant_val: float = 0.0) -> Array:
    """The last axes extended, by a constant, a reflection or their edge."""
    if len(pad) % 2 or len(pad) > 2 * x.ndim or min(pad, default=0) < 0:
        raise ValueError(f"pad {list(pad)} for x of rank {x.ndim}")
    edges = [(0, 0)] * (x.ndim - len(pad) // 2) + list(zip(pad[::2], pad[1::2], strict=True))
    if mode == "constant":
        return _padded(x, edges, constant_val)
    if mode == "reflect":
        if any(max(edge) >= size for edge, size in zip(edges, x.shape, strict=True) if any(edge)):
            raise ValueError(f"a reflection of {list(pad)} in {x.shape}")
        return np.pad(x, edges, "reflect")
    if mode == "replicate":
        return np.pad(x, edges, "edge")
    raise ValueError(f"unknown mode {mode!r}")


@operation("band_part", widens=False)
def band_part(x: Array, lower: int = -1, upper: int = -1) -> Array:
    """Zero outside a band around the diagonal of the last two axes."""
    rows, columns = np.ogrid[: x.shape[-2], : x.shape[-1]]
    inside = (lower < 0) | (rows - columns <= lower)
    inside = inside & ((upper < 0) | (columns - rows <= upper))
    return np.where(inside, x, x.dtype.type(0))


@operation("pixel_shuffle", moves=True)
def pixel_shuffle(x: Array, upscale_factor: int) -> Array:
    """Channels [c, f, f] to space."""
    n, channels, height, width = x.shape
    f = upscale_factor
    blocks = x.reshape(n, channels // (f * f), f, f, height, width)
    return blocks.transpose(0, 1, 4, 2, 5, 3).reshape(n, -1, height * f, width * f)


@operation("pixel_unshuffle", moves=True)
def pixel_unshuffle(x: Array, downscale_factor: int) -> Array:
    """Space to channels [c, f, f]."""
    n, channels, height, width = x.shape
    f = downscale_factor
    blocks = x.reshape(n, channels, height // f, f, width // f, f)
    return blocks.transpose(0, 1, 3, 5, 2, 4).reshape(n, -1, height // f, width // f)


@operation("depth_to_space", moves=True)
def depth_to_space(x: Array, block_size: int) -> Array:
    """Channels [f, f, c] to space."""
    n, channels, height, width = x.shape
    f = block_size
    blocks = x.reshape(n, f, f, channels // (f * f), height, width)
    return blocks.transpose(0, 3, 4, 1, 5, 2).reshape(n, -1, height * f, width * f)


@operation("space_to_depth", moves=True)
def space_to_depth(x: Array, block_size: int) -> Array:
    """Space to channels [f, f, c]."""
    n, channels, height, width = x.shape
    f = block_size
    blocks = x.reshape(n, channels, height // f, f, width // f, f)
    return blocks.transpose(0, 3, 5, 1, 2, 4).reshape(n, -1, height // f, width // f)


def _padded(x: Array, edges: list[tuple[int, int]], value: float) -> Array:
    """x with a constant around it; np.pad takes longer."""
    result = np.empty([b + n + a for n, (b, a) in zip(x.shape, edges, strict=True)], x.dtype)
    inside = tuple(slice(b, b + n) for n, (b, _) in zip(x.shape, edges, strict=True))
    result[inside] = x
    for axis, (part, length) in enumerate(zip(inside, result.shape, strict=True)):
        before = (*[slice(None)] * axis, slice(0, part.start))
        after = (*[slice(None)] * axis, slice(part.stop, length))
        result[before] = result[after] = value
    return result


def _index(
    x: Array,
    begin: Ints,
    end: Ints,
    stride: Ints | None,
    begin_mask: Bools | None,
    end_mask: Bools | None,
    squeeze_mask: Bools | None,
) -> tuple[slice | int, ...]:
    """The bounds and masks as one numpy index."""
    steps = stride or (1,) * x.ndim
    no = (False,) * x.ndim
    masks = (begin_mask or no, end_mask or no, squeeze_mask or no)
    index: list[slice | int] = []
    if any(len(values) != x.ndim for values in (begin, end, steps, *masks)):
        raise ValueError(f"bounds or masks not of the rank of x, {x.ndim}")
    for b, e, step, open_begin, open_end, single in zip(begin, end, steps, *masks, strict=True):
        if single:
            index.append(0 if open_begin else b)
        else:
            index.append(slice(None if open_begin else b, None if open_end else e, step))
    return tuple(index)
