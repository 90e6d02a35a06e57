"""Stores constants whose columns repeat as a table of columns and an index.

Window attention adds the relative position bias of each pair of tokens, (heads, w², w²), of which
only (2w − 1)² columns are different. Runtimes build the constant when they load the artifact.
"""

from __future__ import annotations

import numpy as np

__all__ = ["table_of"]

SMALLEST = 1 << 16  # bytes; smaller constants are not worth another operator


def table_of(value: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The different columns of `value`, (first axis, different), and the column of each place,
    (all other axes), int32; None where they take more than half of its bytes.

    `np.take(table, index, axis=1)` is `value` to the bit. Columns are in the order in which they
    first occur, so that windows of the same size have the same index.
    """
    if value.ndim < 2 or value.nbytes < SMALLEST or value.dtype.kind != "f":
        return None
    columns = np.ascontiguousarray(value.reshape(value.shape[0], -1).T)
    # Compared as bytes, which keeps the sign of zeros and any NaN.
    rows = columns.view(np.dtype((np.void, columns.dtype.itemsize * columns.shape[1]))).ravel()
    _, first, index = np.unique(rows, return_index=True, return_inverse=True)
    order = np.argsort(first)
    table = np.ascontiguousarray(columns[first[order]].T)
    places = np.argsort(order)[index].reshape(value.shape[1:]).astype(np.int32)
    return (table, places) if 2 * (table.nbytes + places.nbytes) <= value.nbytes else None
