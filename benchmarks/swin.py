"""The published Swin-T (arXiv 2103.14030), for comparison with Slide-Swin-T.

Windows are partitioned by a view of rank 6, q, k and v are one product of rank 5, each run looks
up the position bias in its table, and shifts are `torch.roll`. No constants are folded.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slide_deploy.models.window_attention import relative_position_index, shift_mask

__all__ = ["SwinT"]

DIM, DEPTHS, HEADS, WINDOW, PATCH = 96, (2, 2, 6, 2), (3, 6, 12, 24), 7, 4


class WindowAttention(nn.Module):
    """Attention within windows; (windows·B, N, C) → (windows·B, N, C)."""

    relative_position_index: Tensor

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, heads))
        self.register_buffer("relative_position_index", relative_position_index(WINDOW))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        windows, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(windows, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        logits = (q * self.scale) @ k.transpose(-2, -1)
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)]
        logits = logits + bias.view(tokens, tokens, -1).permute(2, 0, 1).unsqueeze(0)
        if mask is not None:
            kinds = mask.shape[0]
            logits = logits.view(windows // kinds, kinds, self.heads, tokens, tokens)
            logits = (logits + mask[None, :, None]).view(-1, self.heads, tokens, tokens)
        out = (logits.softmax(dim=-1) @ v).transpose(1, 2).reshape(windows, tokens, dim)
        projected: Tensor = self.proj(out)
        return projected


class Block(nn.Module):
    """Pre-norm transformer block on tokens (B, H·W, C)."""

    mask: Tensor | None

    def __init__(self, dim: int, heads: int, side: int, shift: int) -> None:
        super().__init__()
        self.side, self.shift = side, shift
        self.norm1, self.attn = nn.LayerNorm(dim), WindowAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.register_buffer("mask", shift_mask(side, side, WINDOW, shift) if shift else None)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        cut = self.side // WINDOW
        grid = self.norm1(x).view(batch, self.side, self.side, dim)
        if self.shift:
            grid = torch.roll(grid, (-self.shift, -self.shift), (1, 2))
        windows = grid.view(batch, cut, WINDOW, cut, WINDOW, dim).permute(0, 1, 3, 2, 4, 5)
        windows = self.attn(windows.reshape(-1, WINDOW**2, dim), self.mask)
        grid = windows.view(batch, cut, cut, WINDOW, WINDOW, dim).permute(0, 1, 3, 2, 4, 5)
        grid = grid.reshape(batch, self.side, self.side, dim)
        if self.shift:
            grid = torch.roll(grid, (self.shift, self.shift), (1, 2))
        x = x + grid.view(batch, tokens, dim)
        merged: Tensor = x + self.mlp(self.norm2(x))
        return merged


class PatchMerging(nn.Module):
    """2×2 neighbours into one token: (B, H·W, C) → (B, H·W/4, 2C)."""

    def __init__(self, dim: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.norm, self.reduction = nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, dim = x.shape
        x = x.view(batch, self.side, self.side, dim)
        corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        merged: Tensor = self.reduction(self.norm(torch.cat(corners, -1).view(batch, -1, 4 * dim)))
        return merged


class SwinT(nn.Module):
    """Image (B, 3, S, S) → logits (B, 1000); S is a multiple of 224."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.embed, self.embed_norm = nn.Conv2d(3, DIM, PATCH, PATCH), nn.LayerNorm(DIM)
        stages: list[nn.Module] = []
        for stage, (depth, heads) in enumerate(zip(DEPTHS, HEADS, strict=True)):
            dim, side = DIM * 2**stage, size // PATCH // 2**stage
            for index in range(depth):
                shifted = index % 2 == 1 and side > WINDOW
                stages.append(Block(dim, heads, side, WINDOW // 2 if shifted else 0))
            if stage < len(DEPTHS) - 1:
                stages.append(PatchMerging(dim, side))
        self.stages = nn.Sequential(*stages)
        self.norm, self.head = nn.LayerNorm(8 * DIM), nn.Linear(8 * DIM, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed_norm(self.embed(x).flatten(2).transpose(1, 2))
        logits: Tensor = self.head(self.norm(self.stages(x)).mean(dim=1))
        return logits
