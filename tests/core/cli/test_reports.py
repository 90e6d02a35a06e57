"""`--report` and `--baseline` on the command line; the verification itself is stood in for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from slide_deploy.artifacts.manifest import SourceRecord
from slide_deploy.cli import app
from slide_deploy.errors import UsageError
from slide_deploy.types import Precision, Verdict
from slide_deploy.utils.records import write_json
from slide_deploy.verification import recorded as golden
from slide_deploy.verification.record import Check, Report, overall, read_report

PASSED = Check("onnx", "m.onnx", Precision.FLOAT32, Verdict.PASS, (), operators={"a::Add": 1})
FAILED = replace(PASSED, verdict=Verdict.FAIL, problems=("it differs",))


def report(*checks: Check) -> Report:
    source = SourceRecord("m.pth", "0" * 64, "model")
    return Report(overall(checks), source, "m", "reference", checks, "command", {})


@pytest.fixture
def verify(monkeypatch, tmp_path):
    """Run `slide-deploy verify m.onnx …` in a folder of its own, with this outcome."""
    monkeypatch.chdir(tmp_path)

    def run(found: Report, *arguments: str):
        monkeypatch.setattr(golden, "verify_recorded", lambda *_: found)
        return CliRunner().invoke(app, ["verify", "m.onnx", *arguments])

    return run


@pytest.mark.parametrize(("check", "code"), [(PASSED, 0), (FAILED, 1)])
def test_reports_are_written_whatever_the_verdict(verify, check, code):
    done = verify(report(check), "--report", "r.md", "--report", "sub/r.json")
    assert done.exit_code == code
    assert Path("r.md").read_text(encoding="utf-8").startswith("## ")
    assert read_report(Path("sub/r.json")) == report(check)


def test_an_unknown_suffix_stops_before_the_work(verify, monkeypatch):
    done = verify(report(PASSED), "--report", "r.pdf", "--report", "r.md")
    assert isinstance(done.exception, UsageError)
    assert ".html" in done.exception.hint
    assert not Path("r.md").exists()


def test_a_regression_against_the_baseline_fails_and_is_in_the_report(verify):
    write_json(report(PASSED), Path("old.json"))
    now = replace(PASSED, operators={"a::Add": 1, "a::Erf": 1})
    done = verify(report(now), "--baseline", "old.json", "--report", "new.json")
    assert done.exit_code == 1
    assert "operator a::Erf is not in the baseline" in done.stdout
    assert read_report(Path("new.json")).verdict is Verdict.FAIL
    assert verify(report(PASSED), "--baseline", "old.json").exit_code == 0


def test_a_baseline_that_is_not_there_is_a_usage_error(verify):
    done = verify(report(PASSED), "--baseline", "none.json")
    assert isinstance(done.exception, UsageError)
