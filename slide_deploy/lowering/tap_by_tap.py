"""Tap by tap: k² depthwise convolutions of multiplier 1, one after the other.

    logit_j(p) = Σ_c q_c(p) · (B[h,c,j] + Σ_δ w[c,j,δ] k_c(p+δ))
    out_c(p)   = Σ_j a_j(p) · (b[c,j] + Σ_δ w[c,j,δ] v_c(p+δ))

The position bias is part of each convolution's bias. One shifted copy of k or v is in memory at a
time, so the lowering needs little memory. It has 2k² small convolutions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slide_deploy.lowering.folding import Folded, fold
from slide_deploy.lowering.layers import add_up, depthwise, pointwise, static_size
from slide_deploy.lowering.lowering import Lowering
from slide_deploy.models.slide_attention import FusedSlideAttention

__all__ = ["LOWERING", "TapByTap"]


class TapByTap(nn.Module):
    """Slide Attention on (B, C, H, W) maps, one tap after the other."""

    def __init__(self, folded: Folded) -> None:
        super().__init__()
        config, dtype = folded.config, folded.dtype
        self.config = config
        self.projections = nn.ModuleList(pointwise(p, dtype) for p in folded.projections)
        self.keys = nn.ModuleList(
            depthwise(folded.key_kernel[:, tap], folded.query_bias[:, :, tap], dtype)
            for tap in range(config.taps)
        )
        value_bias = folded.value_bias.expand(config.heads, -1, -1)
        self.values = nn.ModuleList(
            depthwise(folded.value_kernel[:, tap], value_bias[:, :, tap], dtype)
            for tap in range(config.taps)
        )
        self.output = pointwise(folded.output, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Attend; (B, H, W, C) → (B, H, W, C)."""
        height, width = static_size(x)
        config, pixels = self.config, height * width
        heads, depth = config.heads, config.head_dim
        x = x.permute(0, 3, 1, 2)
        mapped = [projection(x) for projection in self.projections]
        q, k, v = mapped * (3 if config.share_qkv else 1)

        logits = [
            (q * keys(k)).reshape(-1, depth, pixels).sum(dim=1, keepdim=True) for keys in self.keys
        ]
        attention = torch.cat(logits, dim=1).softmax(dim=1).unbind(dim=1)
        attended = add_up(
            share[:, None] * values(v).reshape(-1, depth, pixels)
            for share, values in zip(attention, self.values, strict=True)
        )
        out: Tensor = self.output(attended.reshape(-1, heads * depth, height, width))
        return out.permute(0, 2, 3, 1)


def build(module: FusedSlideAttention) -> nn.Module:
    return TapByTap(fold(module))


LOWERING = Lowering(
    name="tap-by-tap",
    build=build,
)
