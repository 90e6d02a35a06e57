"""The interface of a lowering."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from slide_deploy.errors import SlideDeployError
from slide_deploy.models.slide_attention import FusedSlideAttention

__all__ = ["ImpossibleLowering", "Lowering"]


class ImpossibleLowering(SlideDeployError):
    """A lowering cannot express a module."""


@dataclass(frozen=True)
class Lowering:
    """An equivalent computation of Slide Attention; a file in `lowering/` defines it as `LOWERING`.

    `build` returns a module, (B, H, W, C) → (B, H, W, C), in the number format of the one that it
    replaces: weights are folded in float64 and rounded once. It raises ImpossibleLowering if the
    lowering cannot express the module. With `any_size`, a trace is valid for maps of any height
    and width.
    """

    name: str
    build: Callable[[FusedSlideAttention], nn.Module]
    any_size: bool = False
