"""The overall verdict, and the documentation of the records."""

from __future__ import annotations

from dataclasses import fields

import pytest

from slide_deploy.types import Options, Precision, Verdict
from slide_deploy.verification.record import Check, Report, overall

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


@pytest.mark.parametrize("record", [Options, Report, Check])
def test_the_docstring_explains_every_field(record: type[Options | Report | Check]) -> None:
    about = record.__doc__ or ""
    assert [field.name for field in fields(record) if f"`{field.name}`" not in about] == []
