"""Gates and their results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from slide_deploy.utils.records import Figure

__all__ = ["EACH_COMPARISON", "MEANING", "Gate", "GateKind", "GateResult", "gates_text"]


class GateKind(StrEnum):
    """The measured figure of a gate, which passes if it is at most the limit."""

    MAX_ERROR = "max_error"
    POOLED_ERROR = "pooled_error"
    SYSTEMATIC_ERROR = "systematic_error"
    SNR_LOSS = "snr_loss"
    TOLERANCE = "tolerance"
    RELATIVE_ERROR = "relative_error"
    DISAGREEMENT = "disagreement"
    QUANTIZATION = "quantization"
    ROUNDING = "rounding"


MEANING = {
    GateKind.MAX_ERROR: "error per probe and output",
    GateKind.POOLED_ERROR: "root mean square error over all probes",
    GateKind.SYSTEMATIC_ERROR: "systematic error on perturbed copies of an input",
    GateKind.SNR_LOSS: "loss of signal-to-noise ratio per probe and output",
    GateKind.TOLERANCE: "error beyond the tolerance, per probe and output",
    GateKind.RELATIVE_ERROR: "root mean square error over all samples",
    GateKind.DISAGREEMENT: "samples whose best class is not that of the reference",
    GateKind.QUANTIZATION: "tensors whose quantization does not follow from the float artifact",
    GateKind.ROUNDING: "constants that are not the rounded ones of the float32 artifact",
}

# Gates on one output and one probe; the others are on one output and several probes.
EACH_COMPARISON = (GateKind.MAX_ERROR, GateKind.SNR_LOSS, GateKind.TOLERANCE)


@dataclass(frozen=True)
class Gate:
    """A limit on one figure, in `unit`; `basis` is the reference of the limit."""

    kind: GateKind
    limit: float
    unit: str
    basis: str


@dataclass(frozen=True)
class GateResult:
    """The worst figure of one artifact for one gate, with its output and probe.

    `measured` is infinite if nothing could be measured; `probe` is empty for a gate over several
    probes.
    """

    kind: GateKind
    limit: Figure
    measured: Figure
    unit: str
    basis: str
    passed: bool
    output: str = ""
    probe: str = ""


def gates_text(gates: Sequence[Gate]) -> str:
    """All limits and their bases, as one line."""
    limits = "; ".join(
        f"{MEANING[gate.kind]} ≤ {gate.limit:g} {gate.unit}".rstrip() for gate in gates
    )
    return f"{limits} ({', '.join(dict.fromkeys(gate.basis for gate in gates))})"
