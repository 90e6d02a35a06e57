"""w8a16: weights of 8 bits, activations of 16 bits between quantized operators."""

from __future__ import annotations

from slide_deploy.quantization.cost import COST_GATES
from slide_deploy.quantization.scheme import Scheme

__all__ = ["SCHEME"]

SCHEME = Scheme(
    name="w8a16",
    short_name="w8a16",
    aliases=(),
    weights="int8",
    activations="uint16",
    needs_calibration=True,
    render=None,
    gates=COST_GATES,
    quantized=True,
)
