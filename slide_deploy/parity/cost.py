"""What a reduced precision costs: outputs on many samples against the float64 reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from slide_deploy.parity.comparison import Comparison
from slide_deploy.parity.expectation import Expectation
from slide_deploy.parity.metrics import snr_db
from slide_deploy.utils.records import Count, Figure

__all__ = ["PrecisionCost", "precision_costs"]


@dataclass(frozen=True)
class PrecisionCost:
    """Figures of one output over all samples of a calibration set.

    `cosine` is the smallest cosine of the angle between the output and the reference of a run.
    Of class scores, `top1_agreed` of `top1_decided` rows have the reference's best class;
    `near_ties` are rows whose two best classes float32 cannot tell apart, which are not counted.
    """

    output: str
    snr_db: Figure
    cosine: Figure
    top1_decided: Count = 0
    top1_agreed: Count = 0
    near_ties: Count = 0


def precision_costs(
    expected: Sequence[Expectation],
    outputs: Mapping[str, Mapping[str, np.ndarray]],
    comparisons: Sequence[Comparison],
) -> tuple[PrecisionCost, ...]:
    """The cost at each output that has the expected shape on every sample."""
    costs = []
    for name in expected[0].references:
        found = [(outputs[e.probe].get(name), e.references[name]) for e in expected]
        pairs = [(v, r) for v, r in found if v is not None and v.shape == r.shape]
        if len(pairs) < len(found):
            continue
        own = [comparison for comparison in comparisons if comparison.output == name]
        made, meant = (np.concatenate([p[side].ravel() for p in pairs]) for side in (0, 1))
        costs.append(
            PrecisionCost(
                output=name,
                snr_db=snr_db(made, meant),
                cosine=min(_cosine(value, reference) for value, reference in pairs),
                top1_decided=sum(c.top1_decided for c in own),
                top1_agreed=sum(c.top1_agreed for c in own),
                near_ties=sum(c.near_ties for c in own),
            )
        )
    return tuple(costs)


def _cosine(value: np.ndarray, reference: np.ndarray) -> float:
    a, b = value.astype(np.float64).ravel(), reference.ravel()
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b / norms) if norms else float(not a.any() and not b.any())
