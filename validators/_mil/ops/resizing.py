"""Resizing of the last two axes, by nearest neighbour and by linear interpolation."""

from __future__ import annotations

import numpy as np

from slide_deploy.validators._mil.dtypes import Array
from slide_deploy.validators._mil.ops.registry import Ints, Note, operation
from slide_deploy.validators._mil.program import Unsupported

__all__ = [
    "resize",
    "resize_bilinear",
    "resize_nearest_neighbor",
    "upsample_bilinear",
    "upsample_nearest_neighbor",
]


@operation("upsample_nearest_neighbor", moves=True)
def upsample_nearest_neighbor(
    x: Array, note: Note, scale_factor_height: float = 1, scale_factor_width: float = 1
) -> Array:
    """Each pixel repeated; for fractional factors, pixel i is pixel floor(i in / out)."""
    target = _scaled(x, scale_factor_height, scale_factor_width)
    if min(target) < 1:
        raise ValueError(f"to a size of {target}")
    if any(count % size for count, size in zip(target, x.shape[-2:], strict=True)):
        note("nearest neighbours by a fractional factor are at floor(i * in / out)")
    for axis, count in zip((-2, -1), target, strict=True):
        x = np.take(x, np.arange(count) * x.shape[axis] // count, axis)
    return x


@operation("resize_nearest_neighbor", moves=True)
def resize_nearest_neighbor(
    x: Array, target_size_height: int, target_size_width: int, note: Note
) -> Array:
    """The nearest pixels, to a given size."""
    return _nearest(x, (target_size_height, target_size_width), note)


@operation("upsample_bilinear")
def upsample_bilinear(
    x: Array,
    scale_factor_height: float = 1,
    scale_factor_width: float = 1,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Array:
    """Linear interpolation, with the scale computed from the rounded size."""
    if half_pixel_centers is None:
        half_pixel_centers = not align_corners
    if align_corners and half_pixel_centers:
        raise Unsupported("align_corners with half_pixel_centers is not documented")
    corners = "STRICT_ALIGN_CORNERS" if align_corners else "DEFAULT"
    mode = "UNALIGN_CORNERS" if half_pixel_centers else corners
    return _bilinear(x, _scaled(x, scale_factor_height, scale_factor_width), mode)


@operation("resize_bilinear")
def resize_bilinear(
    x: Array,
    target_size_height: int = 1,
    target_size_width: int = 1,
    sampling_mode: str = "DEFAULT",
) -> Array:
    """Linear interpolation to a given size."""
    return _bilinear(x, (target_size_height, target_size_width), sampling_mode)


@operation("resize")
def resize(
    x: Array,
    shape: Ints,
    resized_dims: int,
    note: Note,
    interpolation_mode: str = "LINEAR",
    sampling_mode: str = "DEFAULT",
) -> Array:
    """The last `resized_dims` axes to the last ones of `shape`, where 0 keeps a size."""
    if not 0 < resized_dims <= len(shape) <= x.ndim:
        raise ValueError(f"resized_dims {resized_dims} of shape {list(shape)} for x {x.shape}")
    asked = zip(shape[-resized_dims:], x.shape[-resized_dims:], strict=True)
    target = (*x.shape[:-resized_dims], *(size or own for size, own in asked))
    if target[:-2] != x.shape[:-2]:
        raise Unsupported(f"from {x.shape} to {target}: only the last two axes are resized")
    height, width = target[-2:]
    if interpolation_mode == "LINEAR":
        return _bilinear(x, (height, width), sampling_mode)
    if interpolation_mode == "NEAREST_NEIGHBOR" and sampling_mode in ("DEFAULT", "UNALIGN_CORNERS"):
        return _nearest(x, (height, width), note)
    raise Unsupported(f"interpolation_mode {interpolation_mode!r} with {sampling_mode!r}")


def _scaled(x: Array, vertical: float, horizontal: float) -> tuple[int, int]:
    # In float32, in which the product with a rounded factor like 7/3 is a whole number.
    height = np.float32(vertical) * np.float32(x.shape[-2])
    width = np.float32(horizontal) * np.float32(x.shape[-1])
    return int(height), int(width)


def _nearest(x: Array, target: tuple[int, int], note: Note) -> Array:
    """By whole factors each pixel repeated; by others only where all readings of a test agree."""
    for axis, count in zip((-2, -1), target, strict=True):
        size = x.shape[axis]
        points = np.arange(count) * (size / count)
        chosen = np.arange(count) * size // count
        if count % size:
            # Apple's test takes pixels 0, 1, 1 for 2 -> 3: half pixels or rounding, not floor.
            chosen = np.floor(points + 0.5 * size / count).astype(np.intp)
            for rounded in (np.ceil(points - 0.5), np.floor(points + 0.5)):
                if not np.array_equal(chosen, np.minimum(rounded, size - 1)):
                    raise Unsupported(f"nearest neighbour from {size} to {count} pixels")
            note("nearest neighbours where half pixels and rounding give the same")
        x = np.take(x, chosen, axis)
    return x


def _bilinear(x: Array, target: tuple[int, int], mode: str) -> Array:
    return _interpolated(_interpolated(x, -2, target[0], mode), -1, target[1], mode)


def _interpolated(x: Array, axis: int, count: int, mode: str) -> Array:
    """Linear interpolation along one axis."""
    size = x.shape[axis]
    points = np.clip(_grid(size, count, mode), 0, size - 1)
    low = np.minimum(points.astype(np.intp), max(size - 2, 0))
    high = np.minimum(low + 1, size - 1)
    weight = (points - low).astype(x.dtype)
    if axis == -2:
        weight = weight[:, None]
    before, after = np.take(x, low, axis), np.take(x, high, axis)
    result: Array = before * (1 - weight) + after * weight
    return result


def _grid(size: int, count: int, mode: str) -> Array:
    """The positions of the outputs on the input's axis, for each of MIL's sampling modes."""
    steps = np.arange(count, dtype=np.float64)
    if mode == "ALIGN_CORNERS" and count == 1:
        return np.array([(size - 1) / 2])
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        return steps * ((size - 1) / max(count - 1, 1))
    if mode == "DEFAULT":
        return steps * (size / count)
    if mode == "OFFSET_CORNERS":
        return (steps + 0.5) * (max(1, size - 1) / count)
    if mode == "UNALIGN_CORNERS":
        return (steps + 0.5) * (size / count) - 0.5
    raise ValueError(f"unknown sampling mode {mode!r}")
