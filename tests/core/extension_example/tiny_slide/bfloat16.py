"""A precision scheme: bfloat16, judged by the noise of PyTorch's own bfloat16."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from slide_deploy.parity.gates import Gate, GateKind
from slide_deploy.quantization.scheme import Scheme

if TYPE_CHECKING:
    from torch import nn

__all__ = ["SCHEME"]


def render(module: nn.Module) -> nn.Module:
    """A bfloat16 copy."""
    return copy.deepcopy(module).bfloat16()


SCHEME = Scheme(
    name="bfloat16",
    short_name="bf16",
    aliases=("brain",),
    weights="bfloat16",
    activations="bfloat16",
    needs_calibration=False,
    render=render,
    gates=(Gate(GateKind.SNR_LOSS, 6.0, "dB", "against PyTorch's own bfloat16"),),
)
