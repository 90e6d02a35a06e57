"""Window attention with its constants folded: nothing is looked up or scaled when it runs.

    softmax_j((s·q_i)·(k_j + b_k) + B_ij + M_ij) does not feel b_k, which adds the same to all j
    Σ_j a_ij (v_j + b_v) = Σ_j a_ij v_j + b_v, so that proj can hold b_v, as proj(b_v)

The scale s goes into q's projection; the position bias B leaves its table (a gather) and is
added to the mask M of shifted windows once. q, k and v are projected apart, so that each is
transposed by the product that takes it. Exact, fewer operators for every runtime, and Core ML's
Neural Engine has no gather.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from slide_deploy.errors import ConversionError
from slide_deploy.fusion.branches import RELATIVE_TOLERANCE, error_on
from slide_deploy.lowering.folding import Projection
from slide_deploy.lowering.layers import linear
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

        weight_q, weight_k, weight_v = attention.qkv.weight.chunk(3)
        bias_q, bias_proj = None, attention.proj.bias
        if attention.qkv.bias is not None:
            bias_q, _, bias_v = attention.qkv.bias.chunk(3)
            bias_q, bias_proj = bias_q * attention.scale, attention.proj(bias_v)
        dtype = weight_q.dtype
        self.query = linear(Projection(weight_q * attention.scale, bias_q), dtype)
        self.key = linear(Projection(weight_k, None), dtype)
        self.value = linear(Projection(weight_v, None), dtype)
        self.proj = linear(Projection(attention.proj.weight, bias_proj), dtype)

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
        windows = partition(x, self.window)
        q = self._by_head(self.query(windows)).permute(0, 2, 1, 3)
        k = self._by_head(self.key(windows)).permute(0, 2, 3, 1)
        v = self._by_head(self.value(windows)).permute(0, 2, 1, 3)
        if self.groups > self.heads:
            q, v = (part.reshape(-1, self.groups, tokens, depth) for part in (q, v))
            k = k.reshape(-1, self.groups, depth, tokens)
        out = (q @ k + self.bias).softmax(dim=-1) @ v
        if self.groups > self.heads:
            out = out.reshape(-1, self.heads, tokens, depth)
        out = self.proj(out.permute(0, 2, 1, 3).reshape(-1, tokens, self.dim))
        out = unpartition(out, self.window, height, width)
        return cyclic_shift(out, self.shift) if self.shift else out

    def _by_head(self, x: Tensor) -> Tensor:
        """(windows·B, w², C) → (windows·B, w², h, C / h)."""
        return x.reshape(-1, self.window**2, self.heads, self.dim // self.heads)


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
