"""w8: weights of 8 bits; activations and arithmetic stay in floating point."""

from __future__ import annotations

from slide_deploy.quantization.cost import COST_GATES
from slide_deploy.quantization.scheme import Scheme

__all__ = ["SCHEME"]

SCHEME = Scheme(
    name="w8",
    short_name="w8",
    aliases=(),
    weights="int8",
    activations="float32",
    needs_calibration=False,
    render=None,
    gates=COST_GATES,
    quantized=True,
)
