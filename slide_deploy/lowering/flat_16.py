"""The flat lowering with 16 slots for 9 taps: products as wide as a vector register.

The identity is that of `flat.py`; a head's logits have a multiple of 16 columns. Spare columns
repeat taps, which then share their weight (`repeat_taps`). It trades memory for speed: the logits
take 16 columns where 9 would do.
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
