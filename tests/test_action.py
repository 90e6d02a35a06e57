"""The commands of the GitHub action, with a fake slide-deploy."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from slide_deploy.artifacts.manifest import SourceRecord
from slide_deploy.types import Precision, Verdict
from slide_deploy.utils.records import to_json
from slide_deploy.verification.record import Check, Report

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / ".github" / "run.sh"
BIN = str(Path(sys.executable).parent)

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")

# Notes its arguments, writes the reports it was asked for, exits as it was told.
STAND_IN = """#!/usr/bin/env bash
printf '%s\\n' "$@" >arguments
while [ $# -gt 0 ]; do
  if [ "$1" = --report ] && [ -n "$STAND_IN_REPORTS" ]; then
    case "$2" in *.json) echo '{"checks": []}' >"$2" ;; *) echo "the report" >"$2" ;; esac
    shift
  fi
  shift
done
[ -z "$STAND_IN_ERROR" ] || echo "$STAND_IN_ERROR" >&2
exit "$STAND_IN_EXIT"
"""


@pytest.fixture
def act(tmp_path):
    """Run the script with these inputs; gives exit code, arguments, summary and outputs."""
    (tmp_path / "bin").mkdir()
    stand_in = tmp_path / "bin" / "slide-deploy"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    inputs = dict.fromkeys(
        ("MODEL", "CONFIG", "ARTIFACTS", "IMAGE_SIZE", "CALIBRATION", "BASELINE"), ""
    )
    inputs |= {"TARGETS": "all", "PRECISION": "float32", "OUTPUT": "out"}

    def run(code: int = 0, **given: str) -> tuple[int, list[str], str, str]:
        files = {"GITHUB_STEP_SUMMARY": "summary", "GITHUB_OUTPUT": "outputs"}
        environment = {
            "PATH": os.pathsep.join((str(tmp_path / "bin"), BIN, os.environ["PATH"])),
            "RUNNER_TEMP": str(tmp_path),
            "STAND_IN_EXIT": str(code),
            "STAND_IN_REPORTS": "yes",
            "STAND_IN_ERROR": "",
            **{name: str(tmp_path / file) for name, file in files.items()},
            **inputs,
            **given,
        }
        done = subprocess.run(["bash", SCRIPT], env=environment, cwd=tmp_path, check=False)
        found = [tmp_path / name for name in ("arguments", "summary", "outputs")]
        texts = [path.read_text() if path.exists() else "" for path in found]
        return done.returncode, texts[0].splitlines(), texts[1], texts[2]

    return run


@pytest.mark.parametrize(("code", "verdict"), [(0, "pass"), (1, "fail"), (3, "not_run")])
def test_exit_code_summary_and_verdict_are_passed_on(act, code, verdict):
    returned, _, summary, outputs = act(code, MODEL="m.pth")
    assert returned == code
    assert summary == "the report\n"
    assert outputs == f"report=out/report.html\nverdict={verdict}\n"


@pytest.mark.parametrize(("code", "verdict"), [(1, "fail"), (2, "error"), (70, "error")])
def test_a_verdict_is_told_also_where_no_report_was_written(act, code, verdict):
    returned, _, summary, outputs = act(code, MODEL="m.pth", STAND_IN_REPORTS="")
    assert (returned, summary, outputs) == (code, "", f"verdict={verdict}\n")


def test_an_error_after_the_report_is_no_failed_verdict(act):
    returned, _, summary, outputs = act(70, MODEL="m.pth")
    assert (returned, summary) == (70, "the report\n")
    assert outputs == "report=out/report.html\nverdict=error\n"


def test_a_model_is_exported(act, tmp_path):
    given = {"TARGETS": "onnx coreml", "PRECISION": "w8a8", "BASELINE": "old.json"}
    given["CALIBRATION"] = "some images"
    _, arguments, _, _ = act(MODEL="my model.pth", IMAGE_SIZE="224", **given)
    assert arguments == [
        *("export", "--output", "out", "--precision", "w8a8"),
        *("--target", "onnx", "--target", "coreml", "--image-size", "224"),
        *("--calibration", "some images"),
        *("--baseline", "old.json", "--report", str(tmp_path / "slide-deploy.md")),
        *("--report", str(tmp_path / "slide-deploy.json")),
        *("--report", "out/report.xml", "--", "my model.pth"),
    ]


def test_a_project_file_has_the_model_targets_and_precision(act, tmp_path):
    _, arguments, _, _ = act(CONFIG="ml/slide-deploy.toml")
    reports = (tmp_path / "slide-deploy.md", tmp_path / "slide-deploy.json", "out/report.xml")
    assert arguments == [
        *("export", "--output", "out", "--config", "ml/slide-deploy.toml"),
        *(word for path in reports for word in ("--report", str(path))),
        "--",
    ]
    _, arguments, _, _ = act(CONFIG="slide-deploy.toml", MODEL="other.pth")
    assert arguments[-2:] == ["--", "other.pth"]


def test_nothing_to_export_or_verify_is_an_error(act):
    code, arguments, _, outputs = act()
    assert (code, arguments, outputs) == (2, [], "verdict=error\n")


def test_artifacts_are_verified(act, tmp_path):
    _, arguments, _, _ = act(MODEL="m.pth", ARTIFACTS="a b.onnx\n\n-c.mlpackage\n")
    assert arguments == [
        *("verify", "--against", "m.pth", "--report", "out/report.html"),
        *("--report", "out/report.json", "--report", str(tmp_path / "slide-deploy.md")),
        *("--report", str(tmp_path / "slide-deploy.json")),
        *("--report", "out/report.xml", "--", "a b.onnx", "-c.mlpackage"),
    ]


def annotations(tmp_path: Path, report: str | None, log: str) -> list[str]:
    (tmp_path / "log").write_text(log)
    if report is not None:
        (tmp_path / "report.json").write_text(report)
    command = [sys.executable, SCRIPT.with_name("annotate.py"), "report.json", "log"]
    return subprocess.check_output(command, cwd=tmp_path, text=True).splitlines()


def test_what_failed_becomes_annotations(tmp_path):
    passed = Check("onnx", "m.onnx", Precision.FLOAT32, Verdict.PASS, ())
    problems = ("it differs by 100 %\n::error::injected", "and more")
    failed = replace(passed, verdict=Verdict.FAIL, problems=problems, path="a:b,c.onnx")
    failed = replace(failed, first_bad_block="layers.0")
    unrun = replace(passed, verdict=Verdict.NOT_RUN, problems=("no library",))
    source = SourceRecord("m.pth", "0" * 64, "model")
    report = Report(Verdict.FAIL, source, "m", "r", (passed, failed, unrun), "command", {})
    told = (
        "the first block whose error exceeds the noise is layers.0"
        "%0Ait differs by 100 %25%0A::error::injected%0Aand more"
    )
    assert annotations(tmp_path, to_json(report), "loading\n") == [
        f"::error title=onnx%3A a%3Ab%2Cc.onnx::{told}",
        "::warning title=onnx%3A m.onnx::no library",
    ]


def test_an_error_of_the_program_becomes_an_annotation(tmp_path):
    log = "loading m.pth\nerror: m.pth does not exist\n  → check the path\n"
    expected = ["::error title=slide-deploy::m.pth does not exist"]
    assert annotations(tmp_path, None, log) == expected


def test_the_script_annotates_and_keeps_the_exit_code(act, capfd):
    returned, *_ = act(2, MODEL="m.pth", STAND_IN_REPORTS="", STAND_IN_ERROR="error: no model")
    printed = capfd.readouterr()
    assert returned == 2
    assert printed.out == "::error title=slide-deploy::no model\n"
    assert printed.err == "error: no model\n"


def test_neither_model_nor_artifacts_is_bad_usage(act):
    returned, _, _, outputs = act()
    assert (returned, outputs) == (2, "verdict=error\n")


def test_inputs_are_never_run(act, tmp_path):
    act(MODEL="$(touch owned)", ARTIFACTS="`touch owned`", BASELINE="; touch owned", TARGETS="*")
    assert not (tmp_path / "owned").exists()


def test_the_action_gives_the_script_its_variables():
    action = (ROOT / "action.yml").read_text(encoding="utf-8")
    used = set(re.findall(r"\$\{?([A-Z_]+)", SCRIPT.read_text(encoding="utf-8")))
    given = set(re.findall(r"^ {8}([A-Z_]+): \$\{\{ inputs\.", action, flags=re.M))
    assert used - {"RUNNER_TEMP", "GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"} <= given
    # In the steps, inputs stand only where a value is expected, never inside a script.
    for line in action.splitlines():
        assert not re.search(r"run:.*\$\{\{", line), line
