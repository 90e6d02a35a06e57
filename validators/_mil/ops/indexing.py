"""Gathering and scattering by tensors of indices, which must all be inside the tensor."""

from __future__ import annotations

from typing import Any

import numpy as np

from slide_deploy.validators._mil.dtypes import Array
from slide_deploy.validators._mil.ops.registry import Note, operation
from slide_deploy.validators._mil.program import Unsupported

__all__ = [
    "gather",
    "gather_along_axis",
    "gather_nd",
    "non_zero",
    "scatter",
    "scatter_along_axis",
    "scatter_nd",
]

_IOS17 = 7
_MODES: dict[str, np.ufunc] = {
    "add": np.add,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "sub": np.subtract,
}


@operation("gather", moves=True)
def gather(
    x: Array,
    indices: Array,
    opset: int,
    axis: int = 0,
    batch_dims: int = 0,
    validate_indices: bool = False,
) -> Array:
    """Slices of x along an axis, for each index of the `batch_dims` leading axes."""
    del validate_indices  # Indices are validated whatever the program asks for.
    axis %= x.ndim
    indices = _inside(indices, x.shape[axis], opset)
    if batch_dims == 0:
        return np.take(x, indices, axis)
    if not 0 < batch_dims <= axis or x.shape[:batch_dims] != indices.shape[:batch_dims]:
        raise ValueError(f"batch_dims {batch_dims} for x {x.shape}, indices {indices.shape}")
    batch = x.shape[:batch_dims]
    parts = [np.take(x[i], indices[i], axis - batch_dims) for i in np.ndindex(*batch)]
    return np.stack(parts).reshape(*batch, *parts[0].shape)


@operation("gather_along_axis", moves=True)
def gather_along_axis(
    x: Array, indices: Array, opset: int, axis: int = 0, validate_indices: bool = False
) -> Array:
    """One element of x for each index; on the other axes at the position of the index."""
    del validate_indices
    return np.take_along_axis(x, _inside(indices, x.shape[axis], opset), axis)


@operation("gather_nd", moves=True)
def gather_nd(
    x: Array,
    indices: Array,
    opset: int,
    batch_dims: int = 0,
    validate_indices: bool = False,
) -> Array:
    """Slices of x at the coordinates on the last axis of `indices`."""
    del validate_indices
    batch = x.shape[:batch_dims]
    if batch != indices.shape[:batch_dims]:
        raise ValueError(f"batch_dims {batch_dims} for x {x.shape}, indices {indices.shape}")
    if batch_dims == 0:
        return x[_coordinates(x, indices, opset)]
    parts = [x[i][_coordinates(x[i], indices[i], opset)] for i in np.ndindex(*batch)]
    return np.stack(parts).reshape(*batch, *parts[0].shape)


@operation("non_zero", widens=False)
def non_zero(x: Array) -> Array:
    """The coordinates of the elements that are not zero, row by row."""
    return np.argwhere(x).astype(np.int32)


@operation("scatter")
def scatter(
    data: Array,
    indices: Array,
    updates: Array,
    mode: str,
    opset: int,
    note: Note,
    axis: int = 0,
    validate_indices: bool = False,
) -> Array:
    """data with slices along an axis updated."""
    del validate_indices
    axis %= data.ndim
    index = (*[slice(None)] * axis, _inside(indices, data.shape[axis], opset))
    return _scattered(data, index, updates, mode, note)


@operation("scatter_along_axis")
def scatter_along_axis(
    data: Array,
    indices: Array,
    updates: Array,
    mode: str,
    opset: int,
    note: Note,
    axis: int = 0,
    validate_indices: bool = False,
) -> Array:
    """data with one element for each index updated."""
    del validate_indices
    index: list[Array] = list(np.indices(indices.shape, sparse=True))
    index[axis] = _inside(indices, data.shape[axis], opset)
    return _scattered(data, tuple(index), updates, mode, note)


@operation("scatter_nd")
def scatter_nd(
    data: Array,
    indices: Array,
    updates: Array,
    mode: str,
    opset: int,
    note: Note,
    validate_indices: bool = False,
) -> Array:
    """data with slices at coordinates updated."""
    del validate_indices
    index = _coordinates(data, indices, opset)
    return _scattered(data, index, updates, mode, note)


def _inside(indices: Array, size: int, opset: int) -> Array:
    """The indices, after a check of the bounds; from CoreML7 on, negative ones are refused."""
    lowest = 0 if opset >= _IOS17 else -size
    if indices.dtype.kind not in "iu":
        raise ValueError(f"indices of type {indices.dtype}")
    if indices.size and not (lowest <= indices.min() and indices.max() < size):
        raise Unsupported(f"an index outside {lowest}..{size - 1}")
    # Unsigned and negative indices alike, as positions.
    return np.where(indices < 0, indices + size, indices).astype(np.intp)


def _coordinates(x: Array, indices: Array, opset: int) -> tuple[Array, ...]:
    depth = indices.shape[-1]
    return tuple(_inside(indices[..., i], x.shape[i], opset) for i in range(depth))


def _scattered(data: Array, index: Any, updates: Array, mode: str, note: Note) -> Array:
    """The updated data; for repeated indices, mode `update` keeps the last, others accumulate."""
    if data[index].shape != updates.shape or data.dtype != updates.dtype:
        raise ValueError(f"updates {updates.dtype} {updates.shape} for {data[index].shape}")
    result = data.copy()
    if mode == "update":
        # One after another, because numpy does not define the result of repeated indices.
        places = np.arange(data.size).reshape(data.shape)[index].ravel()
        _, last = np.unique(places[::-1], return_index=True)
        kept = places.size - 1 - last
        if kept.size < places.size:
            note("of several updates of one place the last stays")
        result.reshape(-1)[places[kept]] = updates.ravel()[kept]
    elif mode in _MODES:
        _MODES[mode].at(result, index, updates)
    else:
        raise ValueError(f"unknown mode {mode!r}")
    return result
