"""Im2Col: gather every neighbourhood, then apply the learned kernel to it.

    K_{c,δ}(p) = k_c(p+δ)                              (unfold)
    key_{c,j}  = B[h,c,j] + Σ_δ w[c,j,δ] K_{c,δ}       (a k² × k² matrix per channel)
    logit_j    = Σ_c q_c · key_{c,j};    likewise for v

The paper compares with this baseline, without the second line. k² copies of k, then of v, are in
memory twice: gathered, and multiplied by the kernel.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from slide_deploy.lowering.folding import Folded, Projection, fold
from slide_deploy.lowering.layers import linear, pointwise, static_size
from slide_deploy.lowering.lowering import Lowering
from slide_deploy.models.slide_attention import FusedSlideAttention

__all__ = ["LOWERING", "Im2Col"]


class Im2Col(nn.Module):
    """Slide Attention over gathered neighbourhoods, (B, C·k², H·W)."""

    def __init__(self, folded: Folded) -> None:
        super().__init__()
        config, dtype = folded.config, folded.dtype
        heads, inner, taps = config.heads, config.inner, config.taps
        self.config = config
        self.projections = nn.ModuleList(linear(p, dtype) for p in folded.projections)
        # Channel-major, c·k² + j, as unfold orders its output.
        key_kernel = folded.key_kernel.repeat(heads, 1, 1).reshape(inner * taps, taps)
        value_kernel = folded.value_kernel.repeat(heads, 1, 1).reshape(inner * taps, taps)
        value_bias = folded.value_bias.repeat(heads, 1).reshape(-1)
        key_bias = folded.query_bias.reshape(-1)
        self.keys = pointwise(Projection(key_kernel, key_bias), dtype, groups=inner)
        self.values = pointwise(Projection(value_kernel, value_bias), dtype, groups=inner)
        self.output = linear(folded.output, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Attend; (B, H, W, C) → (B, H, W, C)."""
        height, width = static_size(x)
        config, pixels = self.config, height * width
        depth, taps = config.head_dim, config.taps
        mapped = [projection(x).permute(0, 3, 1, 2) for projection in self.projections]
        q, k, v = mapped * (3 if config.share_qkv else 1)

        keys = self.keys(self._gathered(k, height, width)).reshape(-1, depth, taps, pixels)
        logits = (q.reshape(-1, depth, 1, pixels) * keys).sum(dim=1)
        attention = logits.softmax(dim=1).reshape(-1, 1, taps, pixels)
        values = self.values(self._gathered(v, height, width)).reshape(-1, depth, taps, pixels)
        out = (attention * values).sum(dim=2).reshape(-1, config.inner, height, width)
        result: Tensor = self.output(out.permute(0, 2, 3, 1))
        return result

    def _gathered(self, x: Tensor, height: int, width: int) -> Tensor:
        side = self.config.kernel_size
        gathered = F.unfold(x, side, padding=side // 2)
        return gathered.reshape(-1, self.config.inner * self.config.taps, height, width)


def build(module: FusedSlideAttention) -> nn.Module:
    return Im2Col(fold(module))


LOWERING = Lowering(
    name="im2col",
    build=build,
)
