"""Moves space to the batch and back, and reverses parts of sequences."""

from __future__ import annotations

import numpy as np

from slide_deploy.validators._mil.dtypes import Array
from slide_deploy.validators._mil.ops.registry import Ints, operation
from slide_deploy.validators._mil.program import Unsupported

__all__ = ["batch_to_space", "reverse_sequence", "space_to_batch"]


@operation("space_to_batch", moves=True)
def space_to_batch(x: Array, block_shape: Ints, paddings: Array) -> Array:
    """Each position (p, q) in a block becomes an image: the batch is ordered [p, q, n]."""
    rows, columns = _block(x, block_shape, paddings)
    padded = np.pad(x, [(0, 0), (0, 0), *map(tuple, paddings.tolist())])
    n, channels, height, width = padded.shape
    if height % rows or width % columns:
        raise ValueError(f"blocks of {rows} x {columns} in {height} x {width}")
    split = padded.reshape(n, channels, height // rows, rows, width // columns, columns)
    moved = split.transpose(3, 5, 0, 1, 2, 4)
    return moved.reshape(-1, channels, height // rows, width // columns)


@operation("batch_to_space", moves=True)
def batch_to_space(x: Array, block_shape: Ints, crops: Array) -> Array:
    """The inverse of `space_to_batch`, with crops instead of padding."""
    rows, columns = _block(x, block_shape, crops)
    n, channels, height, width = x.shape
    if n % (rows * columns):
        raise ValueError(f"a batch of {n} in blocks of {rows} x {columns}")
    split = x.reshape(rows, columns, n // (rows * columns), channels, height, width)
    joined = split.transpose(2, 3, 4, 0, 5, 1)
    joined = joined.reshape(-1, channels, height * rows, width * columns)
    (top, bottom), (left, right) = crops.tolist()
    return joined[..., top : height * rows - bottom, left : width * columns - right]


@operation("reverse_sequence", widens=False)
def reverse_sequence(x: Array, lengths: Array, seq_axis: int = 0, batch_axis: int = 0) -> Array:
    """The first lengths[i] elements along `seq_axis` backwards, for each i along `batch_axis`."""
    if seq_axis % x.ndim == batch_axis % x.ndim or lengths.shape != (x.shape[batch_axis],):
        raise ValueError(f"lengths {lengths.shape}, axes {seq_axis} and {batch_axis} of {x.shape}")
    if np.any((lengths < 0) | (lengths > x.shape[seq_axis])):
        raise Unsupported(f"lengths {lengths.tolist()} of {x.shape[seq_axis]}")
    result = x.copy()
    ours, theirs = (np.moveaxis(a, (batch_axis, seq_axis), (0, 1)) for a in (result, x))
    for i, length in enumerate(lengths.tolist()):
        ours[i, :length] = theirs[i, :length][::-1]
    return result


def _block(x: Array, block_shape: Ints, edges: Array) -> Ints:
    if x.ndim != 4 or len(block_shape) != 2 or min(block_shape) < 1 or edges.shape != (2, 2):
        raise ValueError(f"block_shape {list(block_shape)}, edges {edges.shape} for {x.shape}")
    if edges.min() < 0:
        raise ValueError(f"edges {edges.tolist()}")
    return block_shape
