"""The gates on what a quantized precision may cost, which all quantized schemes share."""

from __future__ import annotations

from slide_deploy.parity.gates import Gate, GateKind

__all__ = ["COST_GATES"]

BASIS = "cost: against the float64 reference on the calibration set"

# 6 dB: what is worse has lost its ranges. Sound w8a8 exports of trained models kept 20 dB and more.
LARGEST_ERROR = 50.0

# Of 32 samples, three may change their class: `--max-drop` sets the limit for a model.
LARGEST_DISAGREEMENT = 10.0

COST_GATES = (
    Gate(GateKind.RELATIVE_ERROR, LARGEST_ERROR, "% of the output", BASIS),
    Gate(GateKind.DISAGREEMENT, LARGEST_DISAGREEMENT, "% of the samples", BASIS),
)
