"""The canonical lowering: one depthwise convolution of multiplier k², as fusion yields it.

    key_{c,j}(p) = b[c,j] + Σ_δ w[c,j,δ] k_c(p+δ)

All k² shifted copies of k, then of v, are in memory at once.
"""

from __future__ import annotations

from torch import nn

from slide_deploy.lowering.lowering import Lowering
from slide_deploy.models.slide_attention import FusedSlideAttention

__all__ = ["LOWERING"]


def build(module: FusedSlideAttention) -> nn.Module:
    return module


LOWERING = Lowering(
    name="depthwise",
    build=build,
    any_size=True,
)
