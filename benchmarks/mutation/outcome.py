"""What became of one mutant of one format, as kept in results.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["CrossCheck", "Effect", "Headroom", "Outcome", "Results", "Route", "Status"]


class Status(StrEnum):
    """`NOT_MADE`: the converter refused the broken model, so that there is nothing to judge."""

    DETECTED = "detected"
    EQUIVALENT = "equivalent"
    MISSED = "missed"
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
class Outcome:
    """`block` is the block that was broken; empty where there is not one such block.

    `ratios` is error / noise floor per probe, empty where the artifact did not run, and `pooled`
    the one over all probes; `errors` are its parts, root mean square per probe; `named` is the
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
    ratios: Mapping[str, float]
    errors: Mapping[str, float] = field(default_factory=dict)
    pooled: float | None = None
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


@dataclass(frozen=True)
class CrossCheck:
    """One artifact judged by `slide-deploy verify` itself: its exit code, and the expected one."""

    target: str
    what: str
    expected: int
    exit_code: int


@dataclass(frozen=True)
class Results:
    """Everything one run measured; `noise` is each model's own, root mean square per probe."""

    outcomes: tuple[Outcome, ...]
    clean: tuple[Headroom, ...]
    real: tuple[Headroom, ...]
    cross_checks: tuple[CrossCheck, ...]
    noise: Mapping[str, Mapping[str, float]]
