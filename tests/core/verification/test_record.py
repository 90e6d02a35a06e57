"""The overall verdict."""

from __future__ import annotations

import pytest

from slide_deploy.types import Precision, Verdict
from slide_deploy.verification.record import Check, overall

PASS, FAIL, NOT_RUN = Verdict.PASS, Verdict.FAIL, Verdict.NOT_RUN


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([PASS], PASS),
        ([PASS, PASS], PASS),
        ([PASS, FAIL], FAIL),
        ([NOT_RUN, FAIL], FAIL),
        ([PASS, NOT_RUN], NOT_RUN),
        ([NOT_RUN], NOT_RUN),
        ([], NOT_RUN),
    ],
    ids=str,
)
def test_any_failure_fails_and_what_did_not_run_did_not_pass(
    verdicts: list[Verdict], expected: Verdict
) -> None:
    checks = tuple(Check("onnx", "x.onnx", Precision.FLOAT32, v, ()) for v in verdicts)
    assert overall(checks) is expected
