"""Swin's window attention on feature maps, in tensors of rank 4 and below.

Source: Liu et al., "Swin Transformer", ICCV 2021, arXiv 2103.14030. State-dict names are
those of the public implementation; windows are partitioned by merging axes, not by 6-D views.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slide_deploy.models.shapes import shapes_only
from slide_deploy.models.windows import from_windows, to_windows

__all__ = [
    "WindowAttention",
    "cyclic_shift",
    "partition",
    "relative_position_index",
    "shift_mask",
    "unpartition",
]


def relative_position_index(window: int) -> Tensor:
    """Row of the bias table for each pair of tokens of a window, shape (w², w²)."""
    if shapes_only():
        return torch.empty(window**2, window**2, dtype=torch.long)
    axis = torch.arange(window)
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    rows, columns = rows.flatten(), columns.flatten()
    down = rows[:, None] - rows[None, :] + window - 1
    right = columns[:, None] - columns[None, :] + window - 1
    return down * (2 * window - 1) + right


def shift_mask(height: int, width: int, window: int, shift: int) -> Tensor:
    """−100 between tokens that only the cyclic shift made neighbours, shape (windows, w², w²)."""
    if shapes_only():
        return torch.empty(height * width // window**2, window**2, window**2)

    def regions(size: int) -> Tensor:
        position = torch.arange(size)
        return (position >= size - window).long() + (position >= size - shift).long()

    region = 3 * regions(height)[:, None] + regions(width)[None, :]
    tokens = partition(region[None, :, :, None], window).squeeze(-1)
    return (tokens[:, None, :] != tokens[:, :, None]).float() * -100.0


def partition(x: Tensor, window: int) -> Tensor:
    """Divide (B, H, W, C) into windows, (B·H·W / w², w², C)."""
    return to_windows(x, window, window)


def unpartition(x: Tensor, window: int, height: int, width: int) -> Tensor:
    """Undo `partition`."""
    return from_windows(x, window, window, height, width)


def cyclic_shift(x: Tensor, shift: int) -> Tensor:
    """Roll (B, H, W, C) by `shift` along H and W, as two concatenations."""
    x = torch.cat((x[:, -shift:], x[:, :-shift]), dim=1)
    return torch.cat((x[:, :, -shift:], x[:, :, :-shift]), dim=2)


class WindowAttention(nn.Module):
    """Multi-head attention within (shifted) windows; (B, H, W, C) → (B, H, W, C).

    `window` must divide H and W. `shift` moves the grid of windows cyclically; tokens that are
    neighbours only by the cyclic shift do not attend to each other.
    """

    relative_position_index: Tensor
    fixes_size = "attends in windows that are cut for one map"

    def __init__(
        self,
        dim: int,
        heads: int,
        window: int,
        resolution: tuple[int, int],
        shift: int = 0,
        *,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.dim, self.heads, self.window, self.shift = dim, heads, window, shift
        self.resolution = resolution
        self.scale = qk_scale or (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("relative_position_index", relative_position_index(window))

    def bias(self) -> Tensor:
        """Relative position bias of every head, shape (h, w², w²)."""
        tokens = self.window**2
        rows = self.relative_position_bias_table[self.relative_position_index.reshape(-1)]
        return rows.reshape(tokens, tokens, self.heads).permute(2, 0, 1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        height, width = self.resolution
        heads, tokens = self.heads, self.window**2
        if self.shift:
            x = cyclic_shift(x, -self.shift)
        windows = partition(x, self.window)

        # Unlike in Slide Attention, the 3C outputs are split by q, k, v first, then by head.
        qkv = self.qkv(windows).reshape(-1, tokens, 3 * heads, self.dim // heads)
        q, k, v = qkv.permute(0, 2, 1, 3).chunk(3, dim=1)
        bias = self.bias()
        if mask is not None:
            # Windows and heads form one axis, so that the addition has rank 4.
            groups = len(mask) * heads
            q, k, v = (x.reshape(-1, groups, tokens, self.dim // heads) for x in (q, k, v))
            bias = (bias + mask[:, None]).reshape(groups, tokens, tokens)
        logits = (q * self.scale) @ k.transpose(-2, -1) + bias
        out = (logits.softmax(dim=-1) @ v).reshape(-1, heads, tokens, self.dim // heads)
        out = self.proj(out.permute(0, 2, 1, 3).reshape(-1, tokens, self.dim))

        out = unpartition(out, self.window, height, width)
        return cyclic_shift(out, self.shift) if self.shift else out
