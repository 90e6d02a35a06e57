"""Divides feature maps into rectangular windows and back, with tensors of rank 4 at most, and
without gathers and strided slices.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["from_windows", "to_windows"]


def to_windows(x: Tensor, rows: int, columns: int) -> Tensor:
    """Divide (B, H, W, C) into windows row by row, (B·windows, rows·columns, C)."""
    _, _, width, channels = x.shape
    if columns < width:
        x = x.reshape(-1, rows, width // columns, columns * channels).permute(0, 2, 1, 3)
    return x.reshape(-1, rows * columns, channels)


def from_windows(x: Tensor, rows: int, columns: int, height: int, width: int) -> Tensor:
    """Undo `to_windows`; the tokens of a window may have one axis or two."""
    channels = x.shape[-1]
    if columns < width:
        x = x.reshape(-1, width // columns, rows, columns * channels).permute(0, 2, 1, 3)
    return x.reshape(-1, height, width, channels)
