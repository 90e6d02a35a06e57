"""Figures from a run: power, and what each probe is good for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.mutation.outcome import Figure, Outcome, Status
from slide_deploy.parity.comparison import NOISE_MULTIPLE, POOLED_MULTIPLE, SYSTEMATIC_MULTIPLE
from slide_deploy.parity.probes import source

__all__ = ["ProbeUse", "counted", "detects", "fewest_probes", "localised", "power", "probe_uses"]


# They work together, with the probe that they repeat.
PERTURBED_COPIES = "echoes"


@dataclass(frozen=True)
class ProbeUse:
    """How many mutants a probe notices by itself, and how many no other would notice."""

    probe: str
    notices: int
    alone: int


def counted(outcomes: Iterable[Outcome]) -> Counter[Status]:
    """How many mutants ended in which way."""
    return Counter(outcome.status for outcome in outcomes)


def power(outcomes: Iterable[Outcome]) -> float:
    """Share of non-equivalent mutants that were detected."""
    count = counted(outcomes)
    made = count[Status.DETECTED] + count[Status.MISSED]
    return count[Status.DETECTED] / made if made else 1.0


def localised(outcomes: Iterable[Outcome]) -> tuple[int, int]:
    """Of the detected mutants with one site that ran: those whose block was named, and all."""
    own = [o for o in outcomes if o.block and o.status is Status.DETECTED and o.figures]
    return sum(o.named == o.block for o in own), len(own)


def detects(outcome: Outcome, probes: Collection[str]) -> bool:
    """Whether these probes alone would have noticed the mutant, by its numbers."""
    if PERTURBED_COPIES in probes and (outcome.repeated or 0.0) > SYSTEMATIC_MULTIPLE:
        return True
    own = [figure for figure in outcome.figures if _unit(figure) in probes]
    if any(figure.max_error > NOISE_MULTIPLE * figure.noise_floor for figure in own):
        return True
    sizes = np.array([figure.size for figure in own], dtype=np.float64)
    errors = np.array([figure.rms_error for figure in own])
    noises = np.array([figure.noise_rms for figure in own])
    return bool(sizes @ np.square(errors) > POOLED_MULTIPLE**2 * (sizes @ np.square(noises)))


def probe_uses(outcomes: Iterable[Outcome]) -> list[ProbeUse]:
    """One entry per probe, over the mutants that ran."""
    ran = [outcome for outcome in outcomes if outcome.figures]
    probes = _probes(ran)
    seen = [outcome for outcome in ran if detects(outcome, probes)]
    uses = []
    for probe in probes:
        others = [other for other in probes if other != probe]
        notices = sum(detects(outcome, [probe]) for outcome in ran)
        alone = sum(not detects(outcome, others) for outcome in seen)
        uses.append(ProbeUse(probe, notices, alone))
    return uses


def fewest_probes(outcomes: Iterable[Outcome]) -> list[tuple[str, int]]:
    """The order in which probes are worth having: each with the mutants noticed so far."""
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
