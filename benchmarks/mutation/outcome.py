"""Records of a run: the outcome of each mutant in each format, and of clean exports."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "CrossCheck",
    "Effect",
    "Figure",
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
class Headroom:
    """Errors of one clean artifact as multiples of the noise; a `problem` is a false alarm."""

    model: str
    target: str
    problem: str
    worst: float
    pooled: float
    systematic: float
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True)
class CrossCheck:
    """The exit code of the command `slide-deploy verify` for one mutant, and the expected one."""

    target: str
    what: str
    expected: int
    exit_code: int


@dataclass(frozen=True)
class Results:
    """Everything one run measured."""

    outcomes: tuple[Outcome, ...]
    clean: tuple[Headroom, ...]
    real: tuple[Headroom, ...]
    cross_checks: tuple[CrossCheck, ...]
