"""Sampling of images: resampling, affine maps, cropping with resizing."""

from __future__ import annotations

import numpy as np

from slide_deploy.validators._mil.dtypes import Array
from slide_deploy.validators._mil.ops.registry import Note, ignore, operation
from slide_deploy.validators._mil.program import Unsupported

__all__ = ["affine", "crop_resize", "resample"]

_IOS15 = 5
_IOS16 = 6


@operation("resample", mixes=("coordinates",), mixes_from=_IOS15)
def resample(
    x: Array,
    coordinates: Array,
    sampling_mode: str,
    padding_mode: str,
    padding_value: float,
    coordinates_mode: str,
    align_corners: bool,
    note: Note,
) -> Array:
    """x [b, c, h, w] at coordinates [b, h2, w2, (x, y)], interpolated or the nearest."""
    if x.ndim != 4 or coordinates.ndim != 4 or len(coordinates) != len(x):
        raise ValueError(f"coordinates {coordinates.shape} for x {x.shape}")
    height, width = x.shape[2:]
    across = _position(coordinates[..., 0], width, coordinates_mode, align_corners)
    down = _position(coordinates[..., 1], height, coordinates_mode, align_corners)
    if sampling_mode == "bilinear":
        return _sampled(x, down, across, padding_mode, padding_value)
    if sampling_mode != "nearest":
        raise ValueError(f"unknown sampling_mode {sampling_mode!r}")
    # Halves to the greater position, and away from zero: Apple's tests tell them not apart.
    upper, outer = (
        _sampled(x, rows, columns, padding_mode, padding_value)
        for rows, columns in (
            [np.floor(p + 0.5) for p in (down, across)],
            [np.copysign(np.floor(np.abs(p) + 0.5), p) for p in (down, across)],
        )
    )
    if any(np.any(np.mod(p, 1) == 0.5) for p in (down, across)):
        if not np.array_equal(upper, outer, equal_nan=True):
            raise Unsupported("a place between two pixels at a negative position")
        note("of two pixels equally near the one at the greater position is taken")
    return upper


@operation("affine", mixes=("transform_matrix",))
def affine(
    x: Array,
    transform_matrix: Array,
    output_height: int,
    output_width: int,
    sampling_mode: str,
    padding_mode: str,
    padding_value: float,
    coordinates_mode: str,
    align_corners: bool,
) -> Array:
    """x at the positions to which a matrix maps those of the output."""
    supported = ("bilinear", "constant", 0, "normalized_minus_one_to_one", True)
    given = (sampling_mode, padding_mode, padding_value, coordinates_mode, align_corners)
    if given != supported:
        raise Unsupported(f"modes {given}, not {supported}")
    if transform_matrix.shape not in ((1, 6), (len(x), 6)):
        raise ValueError(f"transform_matrix {transform_matrix.shape} for x {x.shape}")
    if min(output_height, output_width) < 2:
        raise Unsupported("an output of one row or column")
    down, across = np.meshgrid(
        np.linspace(-1, 1, output_height), np.linspace(-1, 1, output_width), indexing="ij"
    )
    points = np.stack([across, down, np.ones_like(down)], -1).astype(np.float32)
    matrices = np.broadcast_to(transform_matrix, (len(x), 6)).reshape(-1, 1, 2, 3)
    coordinates = np.matmul(points, matrices.swapaxes(-1, -2))
    return resample(x, coordinates, *given, ignore)


@operation("crop_resize", mixes=("boxes", "box_indices"))
def crop_resize(
    x: Array,
    opset: int,
    roi: Array | None = None,
    boxes: Array | None = None,
    box_indices: Array | None = None,
    target_height: int = 1,
    target_width: int = 1,
    normalized_coordinates: bool = False,
    spatial_scale: float = 1.0,
    box_coordinate_mode: str = "CORNERS_HEIGHT_FIRST",
    sampling_mode: str = "DEFAULT",
    pad_value: float = 0.0,
) -> Array:
    """Boxes of x [b, c, h, w], resized; all boxes of each image, or each of one image.

    Points outside the image have `pad_value`, without interpolation.
    """
    if x.ndim != 4 or (roi is None) == (boxes is None):
        raise ValueError(f"x of rank {x.ndim}, and not one of roi and boxes")
    if sampling_mode not in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        raise Unsupported(f"sampling_mode {sampling_mode!r}: no formula is given for a box")
    corners, images = _boxes(x, roi, boxes, box_indices)
    corners = _ordered(corners.astype(np.float64), box_coordinate_mode) * spatial_scale
    if normalized_coordinates:
        corners = corners * (np.array([x.shape[2], x.shape[3]] * 2) - 1)
    results = []
    for (top, left, bottom, right), image in zip(corners, images, strict=True):
        down = _line(top, bottom, target_height, sampling_mode)
        across = _line(left, right, target_width, sampling_mode)
        down, across = np.meshgrid(down, across, indexing="ij")
        chosen = x if image is None else x[image : image + 1]
        planes = np.stack([_bilinear(plane, down, across, "border", 0) for plane in chosen])
        outside = (down < 0) | (down > x.shape[2] - 1) | (across < 0) | (across > x.shape[3] - 1)
        if opset < _IOS16 and outside.any():
            raise Unsupported("a box that reaches outside of the image")
        results.append(np.where(outside, np.float32(pad_value), planes))
    crops = np.stack(results)
    return crops if roi is not None else crops[:, 0]


def _boxes(
    x: Array, roi: Array | None, boxes: Array | None, indices: Array | None
) -> tuple[Array, list[int | None]]:
    """The four coordinates of each box, and its image, or None for all images."""
    if roi is not None:
        if roi.ndim != 5 or roi.shape[2] not in (4, 5) or roi.size != len(roi) * roi.shape[2]:
            raise ValueError(f"roi of shape {roi.shape}")
        flat = roi.reshape(len(roi), -1)
        if roi.shape[2] == 4:
            return flat, [None] * len(roi)
        boxes, indices = flat[:, 1:], flat[:, 0]
    if boxes is None or boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes of shape {None if boxes is None else boxes.shape}")
    images = np.arange(len(boxes)) if indices is None else indices
    if images.shape != boxes.shape[:1] or not np.all(
        (images >= 0) & (images < len(x)) & (images == np.trunc(images))
    ):
        raise ValueError(f"boxes of images {images.tolist()} of {len(x)}")
    return boxes, [int(image) for image in images]


def _ordered(boxes: Array, mode: str) -> Array:
    """Boxes as top, left, bottom, right."""
    order = [1, 0, 3, 2] if mode.endswith("WIDTH_FIRST") else [0, 1, 2, 3]
    boxes = boxes[:, order]
    if mode.startswith("CORNERS_"):
        return boxes
    if not mode.startswith("CENTER_SIZE_"):
        raise ValueError(f"unknown box_coordinate_mode {mode!r}")
    center, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([center - half, center + half], axis=1)


def _line(first: float, last: float, count: int, mode: str) -> Array:
    """Positions from first to last; a single one is the first, or the middle (ALIGN)."""
    if count == 1 and mode == "ALIGN_CORNERS":
        return np.array([(first + last) / 2])
    return first + np.arange(count) * ((last - first) / max(count - 1, 1))


def _position(coordinates: Array, size: int, mode: str, align_corners: bool) -> Array:
    """Coordinates as positions, where 0 is the centre of the first pixel."""
    if mode == "unnormalized":
        return coordinates.astype(np.float64)
    if mode == "normalized_minus_one_to_one":
        unit = (coordinates.astype(np.float64) + 1) / 2
    elif mode == "normalized_zero_to_one":
        unit = coordinates.astype(np.float64)
    else:
        raise ValueError(f"unknown coordinates_mode {mode!r}")
    return unit * (size - 1) if align_corners else unit * size - 0.5


def _sampled(x: Array, down: Array, across: Array, padding_mode: str, value: float) -> Array:
    """Each image of x at positions of its own."""
    positions = zip(x, down, across, strict=True)
    return np.stack([_bilinear(image, d, a, padding_mode, value) for image, d, a in positions])


def _bilinear(image: Array, down: Array, across: Array, padding_mode: str, value: float) -> Array:
    """image [c, h, w] at positions of any shape, with padding outside."""
    top, left = np.floor(down), np.floor(across)
    result = np.zeros((len(image), *down.shape), np.float64)
    for row, weight_down in ((top, 1 - (down - top)), (top + 1, down - top)):
        for column, weight_across in ((left, 1 - (across - left)), (left + 1, across - left)):
            pixels = _pixels(image, row, column, padding_mode, value)
            result += pixels * (weight_down * weight_across)
    return result.astype(image.dtype)


def _pixels(image: Array, row: Array, column: Array, padding_mode: str, value: float) -> Array:
    """The pixels at integer positions, also outside the image."""
    height, width = image.shape[1:]
    if not (np.isfinite(row).all() and np.isfinite(column).all()):
        raise ValueError("a coordinate that is not finite")
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    rows = _reached(row, height, padding_mode)
    columns = _reached(column, width, padding_mode)
    found: Array = image[:, rows, columns]
    return found if padding_mode != "constant" else np.where(inside, found, value)


def _reached(position: Array, size: int, padding_mode: str) -> Array:
    """The pixel that replaces an integer position outside the image."""
    if padding_mode in ("constant", "border") or (padding_mode == "reflection" and size == 1):
        return np.clip(position, 0, size - 1).astype(np.intp)
    if padding_mode == "reflection":
        period = 2 * (size - 1)
        turned = np.mod(position, period)
        reflected: Array = np.minimum(turned, period - turned).astype(np.intp)
        return reflected
    if padding_mode == "symmetric":
        turned = np.mod(position, 2 * size)
        symmetric: Array = np.minimum(turned, 2 * size - 1 - turned).astype(np.intp)
        return symmetric
    raise ValueError(f"unknown padding_mode {padding_mode!r}")
