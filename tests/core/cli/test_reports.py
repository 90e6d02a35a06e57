"""`--report` and `--baseline` on the command line, with a fake verification."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from slide_deploy.artifacts.manifest import SourceRecord
from slide_deploy.cli import app
from slide_deploy.cli.streams import OutputLost
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
        monkeypatch.setattr(golden, "verify_recorded", lambda *_, **__: found)
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


@pytest.mark.parametrize("option", [["--json"], ["--report", "-"]])
@pytest.mark.parametrize(("check", "code"), [(PASSED, 0), (FAILED, 1)])
def test_json_is_all_that_standard_output_gets(verify, option, check, code):
    done = verify(report(check), *option, "--report", "r.json")
    assert done.exit_code == code
    assert done.stdout == Path("r.json").read_text(encoding="utf-8")
    assert json.loads(done.stdout)["checks"][0]["target"] == "onnx"


def test_a_dash_is_no_file(verify):
    verify(report(PASSED), "--report", "-")
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(("check", "code"), [(PASSED, 0), (FAILED, 1)])
def test_quiet_leaves_the_exit_code(verify, check, code):
    done = verify(report(check), "--quiet")
    assert (done.exit_code, done.output) == (code, "")


def test_quiet_and_json_go_together(verify):
    assert json.loads(verify(report(PASSED), "-q", "--json").output)["verdict"] == "pass"


def test_verbose_shows_all_problems(verify):
    many = replace(FAILED, problems=tuple(f"problem {number}" for number in range(9)))
    assert "problem 8" not in verify(report(many)).output
    assert "problem 8" in verify(report(many), "--verbose").output


def test_a_verify_that_writes_no_report_names_none(verify):
    many = replace(FAILED, problems=tuple(f"problem {number}" for number in range(9)))
    assert "report.json" not in verify(report(many)).output


def test_reports_are_written_though_standard_output_is_closed(verify, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise OutputLost(BrokenPipeError())

    monkeypatch.setattr("slide_deploy.report.terminal.report_table", fail)
    done = verify(report(PASSED), "--report", "r.json")
    assert isinstance(done.exception, OutputLost)
    assert read_report(Path("r.json")) == report(PASSED)
