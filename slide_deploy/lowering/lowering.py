"""What a lowering of Slide Attention offers: a name and a builder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from slide_deploy.errors import SlideDeployError
from slide_deploy.models.slide_attention import FusedSlideAttention

__all__ = ["ImpossibleLowering", "Lowering"]


class ImpossibleLowering(SlideDeployError):
    """A lowering that cannot express the module it was asked for; the message says why."""


@dataclass(frozen=True)
class Lowering:
    """One equal formulation of Slide Attention; a file in `lowering/` defines it as `LOWERING`.

    `build` makes the module, (B, H, W, C) → (B, H, W, C) like the one it replaces, in that
    one's number format: weights are folded in float64 and rounded once. It raises
    ImpossibleLowering, saying why, where the lowering cannot express the module. `any_size` says
    that its trace holds for maps of any height and width.
    """

    name: str
    build: Callable[[FusedSlideAttention], nn.Module]
    any_size: bool = False
