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


def opinion(simulated: dict[str, np.ndarray], limit: float = 2.0):
    on_cpu = {"sample 1": {"y": ON_CPU}}
    return _opinion("CPU", EXPECTED, {"sample 1": simulated}, on_cpu, limit)


@pytest.mark.parametrize(("error", "verdict"), [(0.95, Verdict.PASS), (1.05, Verdict.FAIL)])
@pytest.mark.parametrize("limit", [1.0, 2.0])
def test_it_may_differ_by_a_multiple_of_what_the_precision_costs(
    limit: float, error: float, verdict: Verdict
):
    error *= 0.01 * limit
    found = opinion({"y": ON_CPU + error}, limit)
    assert found.verdict is verdict
    assert bool(found.problems) is (verdict is Verdict.FAIL)
    assert found.max_abs_error == pytest.approx(error)


@pytest.mark.parametrize("simulated", [{}, {"z": ON_CPU}, {"y": ON_CPU[:1]}])
def test_without_an_output_to_compare_it_fails(simulated):
    assert opinion(simulated).verdict is Verdict.FAIL
