"""The cost of a precision, on outputs whose figures are known."""

from __future__ import annotations

import numpy as np
import pytest

from slide_deploy.parity.comparison import compare
from slide_deploy.parity.cost import precision_costs
from slide_deploy.parity.expectation import Expectation, Noise
from slide_deploy.quantization.catalog import scheme_named

GATES = scheme_named("w8a8").gates


def expecting(probe: str, *scores: float) -> Expectation:
    return Expectation(probe, "", {}, {"y": np.array([scores])}, {"y": Noise(1e-6, 1e-7)})


EXPECTED = (expecting("a", 3.0, 4.0), expecting("b", 4.0, 3.0), expecting("c", 1.0, 1.0 + 1e-6))


def costs(*made: list[float]):
    outputs = {
        e.probe: {"y": np.array([m], np.float32)} for e, m in zip(EXPECTED, made, strict=True)
    }
    found = [c for e in EXPECTED for c in compare(e, outputs[e.probe], GATES)]
    return precision_costs(EXPECTED, outputs, found)


def test_an_exact_artifact_costs_nothing() -> None:
    (cost,) = costs([3, 4], [4, 3], [1, 1])
    assert cost.snr_db > 120
    assert cost.cosine == pytest.approx(1)
    assert (cost.top1_agreed, cost.top1_decided, cost.near_ties) == (2, 2, 1)


def test_the_cosine_is_that_of_the_worst_sample() -> None:
    (cost,) = costs([3, 4], [-4, -3], [1, 1])
    assert cost.cosine == pytest.approx(-1)
    assert (cost.top1_agreed, cost.top1_decided) == (1, 2)
    assert cost.snr_db == pytest.approx(10 * np.log10(52 / 100), abs=1e-3)


def test_an_output_of_another_shape_has_no_cost() -> None:
    assert costs([3, 4], [4, 3, 1], [1, 1]) == ()
