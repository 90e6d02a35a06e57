"""Figures of a run: detection rate, localisation rate, and the use of each probe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.mutation.outcome import CurvePoint, Figure, Outcome, Status
from slide_deploy.parity.comparison import NOISE_MULTIPLE, POOLED_MULTIPLE, SYSTEMATIC_MULTIPLE
from slide_deploy.parity.probes import PIXELS, source

__all__ = [
    "ProbeUse",
    "counted",
    "detected_above",
    "detection_rate",
    "detects",
    "fewest_probes",
    "localised",
    "probe_uses",
    "upper_bound",
]

# Perturbed copies are counted as one probe: the systematic error is measured on all of them.
PERTURBED_COPIES = "perturbed copies"


@dataclass(frozen=True)
class ProbeUse:
    """How many mutants a probe detects without the others, and how many no other detects."""

    probe: str
    alone: int
    only: int


def counted(outcomes: Iterable[Outcome]) -> Counter[Status]:
    """The number of mutants with each status."""
    return Counter(outcome.status for outcome in outcomes)


def detection_rate(outcomes: Iterable[Outcome]) -> float:
    """Share of non-equivalent mutants that were detected."""
    count = counted(outcomes)
    made = count[Status.DETECTED] + count[Status.MISSED]
    return count[Status.DETECTED] / made if made else 1.0


def localised(outcomes: Iterable[Outcome]) -> tuple[int, int]:
    """The detected mutants whose broken block was named, and all that ran and have one site."""
    own = [o for o in outcomes if o.block and o.status is Status.DETECTED and o.figures]
    return sum(o.named == o.block for o in own), len(own)


def upper_bound(alarms: int, exports: int) -> float:
    """The upper end of the one-sided 95 % confidence interval of the false alarm rate (Clopper and
    Pearson, Biometrika 1934). Without any alarm it is about 3 / exports."""
    from scipy.stats import beta

    return float(beta.ppf(0.95, alarms + 1, exports - alarms)) if exports > alarms else 1.0


def detected_above(points: Iterable[CurvePoint], change: float) -> tuple[int, int]:
    """The changes of this size above the noise that were detected, and all of them."""
    above = [point for point in points if point.change == change and point.above]
    return sum(point.detected for point in above), len(above)


def detects(outcome: Outcome, probes: Collection[str]) -> bool:
    """Whether these probes are enough to detect the mutant from its outputs."""
    if PERTURBED_COPIES in probes and (outcome.systematic or 0.0) > SYSTEMATIC_MULTIPLE:
        return True
    own = [figure for figure in outcome.figures if _unit(figure) in probes]
    if any(figure.max_error > NOISE_MULTIPLE * figure.noise_floor for figure in own):
        return True
    own = [figure for figure in own if figure.probe != PIXELS]
    sizes = np.array([figure.size for figure in own], dtype=np.float64)
    errors = np.array([figure.rms_error for figure in own])
    noises = np.array([figure.noise_rms for figure in own])
    return bool(sizes @ np.square(errors) > POOLED_MULTIPLE**2 * (sizes @ np.square(noises)))


def probe_uses(outcomes: Iterable[Outcome]) -> list[ProbeUse]:
    """One entry per probe, over the mutants that ran."""
    ran = [outcome for outcome in outcomes if outcome.figures]
    probes = _probes(ran)
    detected = [outcome for outcome in ran if detects(outcome, probes)]
    uses = []
    for probe in probes:
        others = [other for other in probes if other != probe]
        alone = sum(detects(outcome, [probe]) for outcome in ran)
        only = sum(not detects(outcome, others) for outcome in detected)
        uses.append(ProbeUse(probe, alone, only))
    return uses


def fewest_probes(outcomes: Iterable[Outcome]) -> list[tuple[str, int]]:
    """Greedy order of the probes: each with the number of mutants detected up to it."""
    ran = [outcome for outcome in outcomes if outcome.figures]
    left = _probes(ran)
    chosen: list[tuple[str, int]] = []
    while left:
        had = [probe for probe, _ in chosen]
        counts = {p: sum(detects(o, [*had, p]) for o in ran) for p in left}
        best = max(left, key=lambda probe: counts[probe])
        chosen.append((best, counts[best]))
        left.remove(best)
    return chosen


def _probes(ran: Sequence[Outcome]) -> list[str]:
    return list(dict.fromkeys(map(_unit, ran[0].figures))) if ran else []


def _unit(figure: Figure) -> str:
    return figure.probe if source(figure.probe) == figure.probe else PERTURBED_COPIES
