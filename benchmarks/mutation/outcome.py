"""What became of one mutant of one format, as kept among the raw results."""

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
    """`MENDED`: the file was broken, but computes what the clean one does to the last bit.
    `NOT_MADE`: the converter refused the broken model, so that there is nothing to judge."""

    DETECTED = "detected"
    EQUIVALENT = "equivalent"
    MISSED = "missed"
    MENDED = "mended"
    NOT_MADE = "not made"


class Route(StrEnum):
    """Broken in the artifact's own file, or before the real converter."""

    FILE = "file"
    CONVERSION = "conversion"


@dataclass(frozen=True)
class Effect:
    """Largest change of any output over the random inputs, and the model's noise over them."""

    change: float
    noise: float

    @property
    def equivalent(self) -> bool:
        """Whether the mutation stays within the rounding noise of the model itself."""
        return self.change <= self.noise


@dataclass(frozen=True)
class Figure:
    """What one probe showed on one output: enough to judge it again by other gates."""

    probe: str
    output: str
    max_error: float
    noise_floor: float
    rms_error: float
    noise_rms: float
    size: int


@dataclass(frozen=True)
class Outcome:
    """`block` is the block that was broken; empty where there is not one such block.

    `figures` are empty where the artifact did not run or gave other shapes; `pooled` is their
    error / noise over all probes, `repeated` that which echoes have in common; `named` is the
    block that the trace named. `effect` is measured for what passed.
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
    repeated: float | None = None
    named: str | None = None
    effect: Effect | None = None


@dataclass(frozen=True)
class Headroom:
    """What one clean artifact used of the gates: a `problem` here is a false alarm."""

    model: str
    target: str
    problem: str
    worst: float
    pooled: float
    repeated: float
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True)
class CrossCheck:
    """One artifact judged by `slide-deploy verify` itself: its exit code, and the expected one."""

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
