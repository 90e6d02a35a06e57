"""Cutting feature maps into rectangular windows and back, in tensors of rank 4 and below.

Axes are merged, never viewed in rank 6, and nothing is gathered or sliced with a stride.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["from_windows", "to_windows"]


def to_windows(x: Tensor, rows: int, columns: int) -> Tensor:
    """Cut (B, H, W, C) into windows row by row, (B·windows, rows·columns, C)."""
    _, _, width, channels = x.shape
    if columns < width:
        x = x.reshape(-1, rows, width // columns, columns * channels).permute(0, 2, 1, 3)
    return x.reshape(-1, rows * columns, channels)


def from_windows(x: Tensor, rows: int, columns: int, height: int, width: int) -> Tensor:
    """Undo `to_windows`; a window may arrive with its tokens on one axis or on two."""
    channels = x.shape[-1]
    if columns < width:
        x = x.reshape(-1, width // columns, rows, columns * channels).permute(0, 2, 1, 3)
    return x.reshape(-1, height, width, channels)
