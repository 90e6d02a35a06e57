"""float16: weights and arithmetic in half precision; judged by the rounding of both."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from slide_deploy.parity.gates import Gate, GateKind
from slide_deploy.quantization.scheme import Scheme

if TYPE_CHECKING:
    from torch import nn

__all__ = ["SCHEME"]

# An artifact may lose this much of the signal-to-noise ratio that PyTorch's own float16 keeps
# against float64: runtimes round after other operations than PyTorch does.
MARGIN_DB = 10.0

# Multiples of the noise. The noise is that of the model's own lowerings, which sum in the order of
# the artifact's, so that less room is needed than for float32: of 174 clean exports of trained,
# foreign and randomly drawn models, the largest were 1.4, 1.6 and 1.1.
LARGEST, POOLED, SYSTEMATIC = 4.0, 2.0, 1.5

BASIS = "noise: the rounding error of PyTorch's own float16, around float64 with float16 weights"


def render(module: nn.Module) -> nn.Module:
    """A float16 copy."""
    return copy.deepcopy(module).half()


def rounded(module: nn.Module) -> nn.Module:
    """A float64 copy with weights rounded to float16."""
    return render(module).double()


SCHEME = Scheme(
    name="float16",
    short_name="fp16",
    aliases=("half",),
    weights="float16",
    activations="float16",
    needs_calibration=False,
    render=render,
    gates=(
        Gate(GateKind.SNR_LOSS, MARGIN_DB, "dB", "against PyTorch's own float16"),
        Gate(GateKind.MAX_ERROR, LARGEST, "× noise", BASIS),
        Gate(GateKind.POOLED_ERROR, POOLED, "× noise", BASIS),
        Gate(GateKind.SYSTEMATIC_ERROR, SYSTEMATIC, "× noise", BASIS),
    ),
    rounded=rounded,
    epsilon=2.0**-10,
)
