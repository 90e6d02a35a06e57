"""float16: weights and arithmetic in half precision, judged by the signal-to-noise ratio."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from slide_deploy.parity.gates import Gate, GateKind
from slide_deploy.quantization.scheme import Scheme

if TYPE_CHECKING:
    from torch import nn

__all__ = ["SCHEME"]

# An artifact may be this much noisier than PyTorch's own float16, since runtimes round after other
# operations.
MARGIN_DB = 10.0


def render(module: nn.Module) -> nn.Module:
    """A float16 copy."""
    return copy.deepcopy(module).half()


SCHEME = Scheme(
    name="float16",
    short_name="fp16",
    aliases=("half",),
    weights="float16",
    activations="float16",
    needs_calibration=False,
    render=render,
    gates=(Gate(GateKind.SNR_LOSS, MARGIN_DB, "dB", "against PyTorch's own float16"),),
)
