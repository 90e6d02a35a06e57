"""Records of a run: the outcome of each mutant in each format, and of clean exports."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "CrossCheck",
    "CurvePoint",
    "Effect",
    "Figure",
    "GateShare",
    "Headroom",
    "Outcome",
    "Results",
    "Route",
    "Status",
]


class Status(StrEnum):
    """`INEFFECTIVE`: the file was changed, but its output is identical to the clean one's.
    `NOT_MADE`: the converter refused the broken model."""

    DETECTED = "detected"
    EQUIVALENT = "equivalent"
    MISSED = "missed"
    INEFFECTIVE = "no effect"
    NOT_MADE = "not made"


class Route(StrEnum):
    """Whether the error was made in the artifact's file or before the conversion."""

    FILE = "file"
    CONVERSION = "conversion"


@dataclass(frozen=True)
class Effect:
    """Largest change of any output over the random inputs, and the model's noise over them."""

    change: float
    noise: float

    @property
    def equivalent(self) -> bool:
        """Whether the change is within the model's own rounding noise."""
        return self.change <= self.noise


@dataclass(frozen=True)
class Figure:
    """Errors of one output on one probe, from which other gates can be evaluated later."""

    probe: str
    output: str
    max_error: float
    noise_floor: float
    rms_error: float
    noise_rms: float
    size: int


@dataclass(frozen=True)
class Outcome:
    """`block` is the broken block, empty if there is not exactly one.

    `figures` are empty if the artifact did not run or its outputs had other shapes. `pooled` and
    `systematic` are multiples of the noise. `named` is the block that the report names. `effect`
    is measured for artifacts that passed.
    """

    model: str
    kind: str
    site: str
    block: str
    detail: str
    target: str
    route: Route
    status: Status
    problem: str
    figures: tuple[Figure, ...] = ()
    pooled: float | None = None
    systematic: float | None = None
    named: str | None = None
    effect: Effect | None = None


@dataclass(frozen=True)
class GateShare:
    """The worst figure of a gate, divided by its limit."""

    gate: str
    share: float


@dataclass(frozen=True)
class CurvePoint:
    """One weight changed by the share `change`, at a site in a layer of some kind. `above`: some
    output changes by more than the noise."""

    model: str
    layer: str
    site: str
    target: str
    change: float
    detected: bool
    above: bool


@dataclass(frozen=True)
class Headroom:
    """Errors of one clean artifact as multiples of the noise, and its use of each gate. `weights`
    is the kind of a drawn model's weights; `overflow`: PyTorch itself overflows at the precision.
    """

    model: str
    target: str
    problem: str
    worst: float
    pooled: float
    systematic: float
    figures: tuple[Figure, ...] = ()
    weights: str = ""
    precision: str = "float32"
    gates: tuple[GateShare, ...] = ()
    overflow: bool = False

    @property
    def false_alarm(self) -> bool:
        """Whether it failed, although PyTorch can compute the model at the precision."""
        return bool(self.problem) and not self.overflow


@dataclass(frozen=True)
class CrossCheck:
    """The exit code of the command `slide-deploy verify` for one mutant, and the expected one."""

    target: str
    what: str
    expected: int
    exit_code: int

    @property
    def agrees(self) -> bool:
        """Whether the command gave the verdict of the run."""
        return self.exit_code == self.expected


@dataclass(frozen=True)
class Results:
    """Everything one run measured. `unusual` are mutants of drawn models, `half` those of float16
    artifacts, `quantized` those of quantized ONNX files; `clean` are exports of drawn models,
    `real` of existing ones."""

    outcomes: tuple[Outcome, ...]
    unusual: tuple[Outcome, ...]
    half: tuple[Outcome, ...]
    quantized: tuple[Outcome, ...]
    curve: tuple[CurvePoint, ...]
    clean: tuple[Headroom, ...]
    real: tuple[Headroom, ...]
    cross_checks: tuple[CrossCheck, ...]

    def clean_at(self, precision: str) -> tuple[Headroom, ...]:
        """The clean exports of drawn models at one precision."""
        return tuple(one for one in self.clean if one.precision == precision)
