"""Figures from a run: power, and what each probe is good for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.mutation.outcome import Outcome, Status
from slide_deploy.parity.compare import NOISE_MULTIPLE, POOLED_MULTIPLE

__all__ = ["ProbeUse", "counted", "detects", "fewest_probes", "localised", "power", "probe_uses"]

Noise = Mapping[str, Mapping[str, float]]


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
    own = [o for o in outcomes if o.block and o.status is Status.DETECTED and o.ratios]
    return sum(o.named == o.block for o in own), len(own)


def detects(outcome: Outcome, probes: Sequence[str], noise: Noise) -> bool:
    """Whether these probes alone would have noticed the mutant, by its numbers."""
    if any(outcome.ratios[probe] > NOISE_MULTIPLE for probe in probes):
        return True
    if not outcome.errors:
        return False
    errors = np.array([outcome.errors[probe] for probe in probes])
    floors = np.array([noise[outcome.model][probe] for probe in probes])
    return bool(np.sqrt(np.square(errors).sum() / np.square(floors).sum()) > POOLED_MULTIPLE)


def probe_uses(outcomes: Iterable[Outcome], noise: Noise) -> list[ProbeUse]:
    """One entry per probe, over the mutants that ran."""
    ran = [outcome for outcome in outcomes if outcome.errors]
    probes = list(ran[0].ratios) if ran else []
    seen = [outcome for outcome in ran if detects(outcome, probes, noise)]
    uses = []
    for probe in probes:
        others = [other for other in probes if other != probe]
        notices = sum(detects(outcome, [probe], noise) for outcome in ran)
        alone = sum(not detects(outcome, others, noise) for outcome in seen)
        uses.append(ProbeUse(probe, notices, alone))
    return uses


def fewest_probes(outcomes: Iterable[Outcome], noise: Noise) -> list[tuple[str, int]]:
    """The order in which probes are worth having: each with the mutants noticed so far."""
    ran = [outcome for outcome in outcomes if outcome.errors]
    left = list(ran[0].ratios) if ran else []
    chosen: list[tuple[str, int]] = []
    while left:
        had = [probe for probe, _ in chosen]
        counts = {p: sum(detects(o, [*had, p], noise) for o in ran) for p in left}
        best = max(left, key=lambda probe: counts[probe])
        chosen.append((best, counts[best]))
        left.remove(best)
    return chosen
