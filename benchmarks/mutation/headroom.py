"""What clean exports use of the gates' limits."""

from __future__ import annotations

import numpy as np

from benchmarks.mutation.bench import Bench
from benchmarks.mutation.outcome import GateShare, Headroom
from slide_deploy.parity.comparison import OVERFLOW

__all__ = ["headroom"]


def headroom(bench: Bench, targets: tuple[str, ...], weights: str = "") -> list[Headroom]:
    """Export a model to every target as `slide-deploy export` does, and verify the artifacts."""
    return [_one(bench, target, weights) for target in targets]


def _one(bench: Bench, target: str, weights: str) -> Headroom:
    observed = bench.verify(target, bench.exported(target), locate=False, exported=True)
    judgement, precision = observed.judgement, bench.scheme.name
    if judgement is None:
        endless = (np.inf, np.inf, np.inf)
        return Headroom(
            bench.name, target, observed.problem, *endless, weights=weights, precision=precision
        )
    together = (judgement.pooled_ratio, judgement.systematic_ratio)
    pooled, systematic = (np.inf if ratio is None else ratio for ratio in together)
    return Headroom(
        model=bench.name,
        target=target,
        problem=observed.problem,
        worst=max(c.noise_ratio for c in judgement.comparisons),
        pooled=pooled,
        systematic=systematic,
        figures=observed.figures,
        weights=weights,
        precision=precision,
        gates=tuple(GateShare(str(g.kind), g.measured / g.limit) for g in judgement.gates),
        overflow=OVERFLOW in observed.problem,
    )
