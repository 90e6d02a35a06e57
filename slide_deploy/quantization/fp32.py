"""float32, judged by the model's own rounding noise."""

from __future__ import annotations

from slide_deploy.parity.comparison import NOISE_MULTIPLE, POOLED_MULTIPLE, SYSTEMATIC_MULTIPLE
from slide_deploy.parity.gates import Gate, GateKind
from slide_deploy.quantization.scheme import Scheme

__all__ = ["SCHEME"]

BASIS = "noise: the rounding error of several float32 runs of the model"

SCHEME = Scheme(
    name="float32",
    short_name="fp32",
    aliases=("single", "full"),
    weights="float32",
    activations="float32",
    needs_calibration=False,
    render=None,
    gates=(
        Gate(GateKind.MAX_ERROR, NOISE_MULTIPLE, "× noise", BASIS),
        Gate(GateKind.POOLED_ERROR, POOLED_MULTIPLE, "× noise", BASIS),
        Gate(GateKind.SYSTEMATIC_ERROR, SYSTEMATIC_MULTIPLE, "× noise", BASIS),
    ),
)
