"""The simulator of a device is compared with the CPU, which runs the same integers."""

from __future__ import annotations

import numpy as np
import pytest

from slide_deploy.parity.expectation import Expectation
from slide_deploy.types import Verdict
from slide_deploy.verification.simulation import _opinion

REFERENCE = np.linspace(-1, 1, 8).reshape(2, 4)
EXPECTED = (Expectation("sample 1", "", {}, {"y": REFERENCE}, {}),)
ON_CPU = REFERENCE + 0.01 * np.array([1, -1] * 4).reshape(2, 4)


def opinion(simulated: dict[str, np.ndarray]):
    return _opinion("CPU", EXPECTED, {"sample 1": simulated}, {"sample 1": {"y": ON_CPU}})


@pytest.mark.parametrize(("error", "verdict"), [(0.019, Verdict.PASS), (0.021, Verdict.FAIL)])
def test_it_may_differ_by_twice_what_the_precision_costs(error: float, verdict: Verdict):
    found = opinion({"y": ON_CPU + error})
    assert found.verdict is verdict
    assert bool(found.problems) is (verdict is Verdict.FAIL)
    assert found.max_abs_error == pytest.approx(error)


@pytest.mark.parametrize("simulated", [{}, {"z": ON_CPU}, {"y": ON_CPU[:1]}])
def test_without_an_output_to_compare_it_fails(simulated):
    assert opinion(simulated).verdict is Verdict.FAIL
