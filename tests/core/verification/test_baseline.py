from __future__ import annotations

from dataclasses import replace

import pytest

from slide_deploy.artifacts.manifest import SourceRecord
from slide_deploy.types import Fidelity, Precision, Verdict
from slide_deploy.verification.baseline import regressions
from slide_deploy.verification.record import Check, Report, overall


def check(target: str = "onnx", path: str = "m.onnx", ratio: float | None = 1.0, **other) -> Check:
    return Check(
        target=target,
        path=path,
        precision=other.pop("precision", Precision.FLOAT32),
        verdict=other.pop("verdict", Verdict.PASS),
        problems=(),
        noise_ratio=ratio,
        **{"fidelity": Fidelity.NATIVE, "runtime": "rt 1", "operators": {"a::Add": 1}, **other},
    )


def report(*checks: Check) -> Report:
    source = SourceRecord("m.pth", "0" * 64, "model")
    return Report(overall(checks), source, "m", "reference", checks, "command", {})


def test_the_same_report_is_returned_unchanged():
    same = report(check(), check("coreml", "m.mlpackage"))
    assert regressions(same, same) == same


@pytest.mark.parametrize(
    ("was", "now", "worse"),
    [
        (1.0, 2.9, False),  # below what counts
        (1.6, 3.1, False),  # not twice as much
        (1.4, 3.1, True),
        (4.0, 7.9, False),
        (4.0, 8.1, True),
        (2.0, float("inf"), True),
        (None, 9.0, False),
        (float("nan"), 9.0, False),
        (1.0, None, False),
    ],
)
def test_noise_must_double_and_leave_the_quiet_zone(was, now, worse):
    found = regressions(report(check(ratio=now)), report(check(ratio=was)))
    assert found.verdict is (Verdict.FAIL if worse else Verdict.PASS)
    assert bool(found.checks[0].problems) is worse


def test_a_native_ratio_is_not_held_against_an_interpreted_one():
    old = report(check(fidelity=Fidelity.INTERPRETED))
    assert regressions(report(check(ratio=9.0)), old).verdict is Verdict.PASS


def test_a_new_kind_of_operator_fails_and_another_count_does_not():
    old = report(check(operators={"a::Add": 1, "a::Mul": 5}))
    assert regressions(report(check(operators={"a::Add": 9})), old).verdict is Verdict.PASS
    now = check(operators={"a::Add": 1, "a::Erf": 1}, runtime="rt 2")
    found = regressions(report(now), old)
    assert found.verdict is Verdict.FAIL
    assert found.checks[0].problems == (
        "operator a::Erf is not in the baseline (which ran on rt 1; this on rt 2)",
    )


def test_a_new_custom_operator_fails():
    found = regressions(report(check(custom_operators=("x::Y",))), report(check()))
    assert found.checks[0].problems == ("custom operator x::Y is not in the baseline",)


def test_a_target_that_is_gone_fails_in_a_check_of_its_own():
    old = report(check(), check("coreml", "m.mlpackage"))
    found = regressions(report(check()), old)
    assert found.verdict is Verdict.FAIL
    assert [c.target for c in found.checks] == ["onnx", "coreml"]
    assert "was not checked now" in found.checks[1].problems[0]


def test_a_target_that_does_not_run_any_more_fails():
    now = replace(check(), verdict=Verdict.NOT_RUN, problems=("needs onnxruntime",))
    found = regressions(report(now), report(check()))
    assert found.verdict is Verdict.FAIL
    assert found.checks[0].problems[0] == "needs onnxruntime"


def test_what_never_ran_is_not_missed():
    old = report(check(), replace(check("coreml"), verdict=Verdict.NOT_RUN))
    assert regressions(report(check()), old).verdict is Verdict.PASS


def test_precisions_are_kept_apart_and_another_file_name_is_not():
    half = check(precision=Precision.FLOAT16, path="h.onnx", ratio=9000.0)
    old = report(check(path="before.onnx"), half)
    assert regressions(report(check(path="after.onnx"), half), old).verdict is Verdict.PASS


def test_several_of_one_target_are_paired_by_name():
    old = report(check(path="a.onnx", ratio=1.0), check(path="b.onnx", ratio=5.0))
    now = report(check(path="b.onnx", ratio=5.0), check(path="a.onnx", ratio=5.0))
    found = regressions(now, old)
    assert [c.verdict for c in found.checks] == [Verdict.PASS, Verdict.FAIL]


def test_a_new_target_is_welcome_and_old_problems_stay():
    bad = replace(check("coreml", "m.mlpackage"), verdict=Verdict.FAIL, problems=("other",))
    found = regressions(report(check(), bad), report(check()))
    assert found.checks[1].problems == ("other",)
    assert found.verdict is Verdict.FAIL


@pytest.mark.parametrize("changed", [{"sha256": "1" * 64}, {"weights": "ema"}])
def test_a_baseline_of_other_weights_is_named(changed: dict[str, str]) -> None:
    old = report(check())
    new = replace(old, source=replace(old.source, **changed))
    found = regressions(new, old)
    assert found.verdict is Verdict.FAIL
    assert "source changed" in found.checks[0].problems[0]
    assert regressions(replace(new, source=replace(old.source, path_name="other.pth")), old) == (
        replace(new, source=replace(old.source, path_name="other.pth"))
    )
