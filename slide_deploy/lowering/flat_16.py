"""The flat lowering with 16 slots for 9 taps: products have the width of a vector register.

The formula is that of `flat.py`, but a head's logits have a multiple of 16 columns. Unused columns
repeat taps, which share their weight (`repeat_taps`). The logits need more memory: 16 columns
instead of 9.
"""

from __future__ import annotations

from torch import nn

from slide_deploy.lowering.flat import FlatShifts
from slide_deploy.lowering.folding import fold
from slide_deploy.lowering.layers import block_slots
from slide_deploy.lowering.lowering import Lowering
from slide_deploy.models.slide_attention import FusedSlideAttention

__all__ = ["LOWERING"]


def build(module: FusedSlideAttention) -> nn.Module:
    return FlatShifts(fold(module), slots=block_slots(module.config.taps))


LOWERING = Lowering(
    name="flat-16",
    build=build,
)
