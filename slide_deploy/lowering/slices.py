"""Slices: pad once, take k² windows as slices, and apply the learned kernel to each.

With K and V zero-padded by k // 2 and K_δ the window at δ:

    logit_j(p) = Σ_c q_c(p) B[h,c,j]  +  Σ_δ Σ_c w[c,j,δ] · q_c(p) K_δ,c(p)
    out_c(p)   = Σ_j a_j(p) b[c,j]    +  Σ_δ V_δ,c(p) · Σ_j w[c,j,δ] a_j(p)

The paper also compares with this baseline, without the learned kernel. One window is in memory at
a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from slide_deploy.lowering.folding import Folded, Projection, fold
from slide_deploy.lowering.layers import add_up, pointwise, spread_heads, static_size
from slide_deploy.lowering.lowering import Lowering
from slide_deploy.models.slide_attention import FusedSlideAttention

__all__ = ["LOWERING", "Slices"]


class Slices(nn.Module):
    """Slide Attention on (B, C, H, W) maps; shifts are slices of a padded map."""

    def __init__(self, folded: Folded) -> None:
        super().__init__()
        config, dtype = folded.config, folded.dtype
        heads, taps = config.heads, config.taps
        self.config = config
        self.projections = nn.ModuleList(pointwise(p, dtype) for p in folded.projections)

        def grouped(weight: Tensor) -> nn.Conv2d:
            return pointwise(Projection(weight, None), dtype, groups=heads)

        own = folded.query_bias.transpose(1, 2).reshape(heads * taps, config.head_dim)
        self.query_bias = grouped(own)
        self.value_bias = grouped(spread_heads(folded.value_bias, heads))
        self.keys = nn.ModuleList(
            grouped(spread_heads(weight.T, heads)) for weight in folded.key_kernel.unbind(2)
        )
        self.values = nn.ModuleList(
            grouped(spread_heads(weight, heads)) for weight in folded.value_kernel.unbind(2)
        )
        self.output = pointwise(folded.output, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Attend; (B, H, W, C) → (B, H, W, C)."""
        height, width = static_size(x)
        config, pixels = self.config, height * width
        x = x.permute(0, 3, 1, 2)
        mapped = [projection(x) for projection in self.projections]
        q, k, v = mapped * (3 if config.share_qkv else 1)

        logits = self.query_bias(q) + add_up(
            keys(q * window)
            for keys, window in zip(self.keys, self._windows(k, height, width), strict=True)
        )
        attention = logits.reshape(-1, config.taps, pixels).softmax(dim=1)
        attention = attention.reshape(-1, config.heads * config.taps, height, width)
        attended = self.value_bias(attention) + add_up(
            values(attention) * window
            for values, window in zip(self.values, self._windows(v, height, width), strict=True)
        )
        out: Tensor = self.output(attended)
        return out.permute(0, 2, 3, 1)

    def _windows(self, x: Tensor, height: int, width: int) -> Iterator[Tensor]:
        side = self.config.kernel_size
        padded = F.pad(x, (side // 2,) * 4)
        for row in range(side):
            for column in range(side):
                yield padded[:, :, row : row + height, column : column + width]


def build(module: FusedSlideAttention) -> nn.Module:
    return Slices(fold(module))


LOWERING = Lowering(
    name="slices",
    build=build,
)
