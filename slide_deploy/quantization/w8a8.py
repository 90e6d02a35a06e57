"""w8a8: weights of 8 bits, activations of 8 bits between quantized operators."""

from __future__ import annotations

from slide_deploy.quantization.cost import COST_GATES
from slide_deploy.quantization.scheme import Scheme

__all__ = ["SCHEME"]

SCHEME = Scheme(
    name="w8a8",
    short_name="w8a8",
    aliases=("int8",),
    weights="int8",
    activations="int8",
    needs_calibration=True,
    render=None,
    gates=COST_GATES,
    quantized=True,
)
