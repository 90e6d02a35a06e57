"""Lists of tensors of one shape: kept as one tensor, whose first axis is the list."""

from __future__ import annotations

import numpy as np

from slide_deploy.validators._mil.dtypes import Array, dtype_named
from slide_deploy.validators._mil.ops.registry import Arrays, Note, operation
from slide_deploy.validators._mil.program import Unsupported

__all__ = ["list_gather", "list_length", "list_read", "list_scatter", "list_write", "make_list"]


@operation("make_list", widens=False)
def make_list(
    elem_shape: Arrays,
    note: Note,
    init_length: int = 1,
    dynamic_length: bool = True,
    dtype: str = "fp32",
) -> Array:
    """A list of zeros; only one of dynamic length may be written beyond its end."""
    if any(size.dtype.kind not in "iu" for size in elem_shape):
        raise Unsupported("elements of a shape that is not known")
    if not dynamic_length:
        raise Unsupported("a list of fixed length")
    note("elements of a list that were not written are zero")
    return np.zeros((init_length, *map(int, elem_shape)), dtype_named(dtype).numpy)


@operation("list_length", widens=False)
def list_length(ls: Array) -> Array:
    """The number of elements."""
    return np.array(len(ls), np.int32)


@operation("list_read", widens=False)
def list_read(ls: Array, index: int) -> Array:
    """The element at an index."""
    return ls[_inside(np.array(index), len(ls))]


@operation("list_gather", widens=False)
def list_gather(ls: Array, indices: Array) -> Array:
    """The elements at several indices, stacked."""
    return ls[_inside(indices, len(ls))]


@operation("list_write", widens=False)
def list_write(ls: Array, index: int, value: Array) -> Array:
    """The list with the element at an index replaced; it grows as far as the index asks."""
    return _written(ls, np.array([index]), value[None])


@operation("list_scatter", widens=False)
def list_scatter(ls: Array, indices: Array, value: Array) -> Array:
    """The list with the elements at several indices replaced; it grows as far as they ask."""
    if len(np.unique(indices)) < indices.size:
        raise Unsupported("one index twice")
    return _written(ls, indices, value)


def _written(ls: Array, indices: Array, values: Array) -> Array:
    if values.shape != (*indices.shape, *ls.shape[1:]) or values.dtype != ls.dtype:
        raise ValueError(f"{values.dtype} {values.shape} for {indices.size} of {ls.dtype}")
    if np.any(indices < 0):
        raise Unsupported("an index below 0")
    result = np.zeros((max(len(ls), *(indices + 1)), *ls.shape[1:]), ls.dtype)
    result[: len(ls)] = ls
    result[indices] = values
    return result


def _inside(indices: Array, length: int) -> Array:
    if indices.size and not (indices.min() >= 0 and indices.max() < length):
        raise Unsupported(f"an index outside 0..{length - 1}")
    return indices
