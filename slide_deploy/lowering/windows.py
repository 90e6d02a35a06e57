"""Window attention with its constants folded: nothing is looked up or scaled when it runs.

The position bias leaves its table (a gather) and is added to the mask of shifted windows once;
the scale goes into q's rows of the projection. Exact, fewer operators for every runtime, and
Core ML's Neural Engine has no gather.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from slide_deploy.errors import ConversionError
from slide_deploy.fusion import RELATIVE_TOLERANCE, error_on
from slide_deploy.models.slide_swin import Block
from slide_deploy.models.window_attention import (
    WindowAttention,
    cyclic_shift,
    partition,
    unpartition,
)

__all__ = ["FoldedWindowAttention", "fold_windows"]


class FoldedWindowAttention(nn.Module):
    """Attention within (shifted) windows; (B, H, W, C) → (B, H, W, C).

    `bias` is that of every head, and of every window where a mask tells them apart: shape
    (h, w², w²) or (windows·h, w², w²), so that logits stay at rank 4.
    """

    bias: Tensor

    def __init__(self, attention: WindowAttention, mask: Tensor | None) -> None:
        super().__init__()
        self.dim, self.heads, self.window = attention.dim, attention.heads, attention.window
        self.shift, self.resolution = attention.shift, attention.resolution
        self.qkv, self.proj = copy.deepcopy(attention.qkv), copy.deepcopy(attention.proj)
        # Outputs are q, k, v: the first third is scaled.
        for parameter in self.qkv.parameters():
            parameter[: self.dim] *= attention.scale
        bias = attention.bias()
        if mask is not None:
            bias = (bias + mask[:, None]).flatten(0, 1)
        self.groups = len(bias)  # heads, or heads of each kind of window
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.resolution
        tokens, depth = self.window**2, self.dim // self.heads
        if self.shift:
            x = cyclic_shift(x, -self.shift)
        qkv = self.qkv(partition(x, self.window)).reshape(-1, tokens, 3 * self.heads, depth)
        q, k, v = qkv.permute(0, 2, 1, 3).chunk(3, dim=1)
        if self.groups > self.heads:
            q, k, v = (part.reshape(-1, self.groups, tokens, depth) for part in (q, k, v))
        out = (q @ k.transpose(-2, -1) + self.bias).softmax(dim=-1) @ v
        if self.groups > self.heads:
            out = out.reshape(-1, self.heads, tokens, depth)
        out = self.proj(out.permute(0, 2, 1, 3).reshape(-1, tokens, self.dim))
        out = unpartition(out, self.window, height, width)
        return cyclic_shift(out, self.shift) if self.shift else out


@torch.no_grad()
def fold_windows(model: nn.Module) -> nn.Module:
    """A copy of `model` with every window attention folded; the model itself stays as it is.

    Raises ConversionError where one is not equal in float64 to the module it replaces.
    """
    folded = copy.deepcopy(model)
    for name, block in folded.named_modules():
        if isinstance(block, Block) and isinstance(block.attn, WindowAttention):
            block.attn = _folded(block.attn, block.attn_mask, name)
            block.attn_mask = None
    return folded


def _folded(attention: WindowAttention, mask: Tensor | None, name: str) -> nn.Module:
    exact = copy.deepcopy(attention).double()
    exact_mask = None if mask is None else mask.double()
    folded = FoldedWindowAttention(exact, exact_mask)
    generator = torch.Generator().manual_seed(0)
    shape = (2, *attention.resolution, attention.dim)
    x = torch.randn(shape, dtype=torch.float64, generator=generator)
    difference = error_on(x, lambda x: exact(x, exact_mask), folded)
    if not difference <= RELATIVE_TOLERANCE:
        raise ConversionError(
            f"folding the constants of {name}.attn changed its output by {difference:.1e} relative",
            "please report it, with the checkpoint's sizes",
        )
    return folded.to(attention.qkv.weight.dtype).train(attention.training)
