"""The commands of the GitHub action, with a fake slide-deploy."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / ".github" / "run.sh"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")

# Notes its arguments, writes the reports it was asked for, exits as it was told.
STAND_IN = """#!/usr/bin/env bash
printf '%s\\n' "$@" >arguments
while [ $# -gt 0 ]; do
  if [ "$1" = --report ] && [ -n "$STAND_IN_REPORTS" ]; then echo "the report" >"$2"; shift; fi
  shift
done
exit "$STAND_IN_EXIT"
"""


@pytest.fixture
def act(tmp_path):
    """Run the script with these inputs; gives exit code, arguments, summary and outputs."""
    (tmp_path / "bin").mkdir()
    stand_in = tmp_path / "bin" / "slide-deploy"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    inputs = dict.fromkeys(("MODEL", "ARTIFACTS", "IMAGE_SIZE", "BASELINE"), "")
    inputs |= {"TARGETS": "all", "PRECISION": "float32", "OUTPUT": "out"}

    def run(code: int = 0, **given: str) -> tuple[int, list[str], str, str]:
        files = {"GITHUB_STEP_SUMMARY": "summary", "GITHUB_OUTPUT": "outputs"}
        environment = {
            "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "RUNNER_TEMP": str(tmp_path),
            "STAND_IN_EXIT": str(code),
            "STAND_IN_REPORTS": "yes",
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
    given = {"TARGETS": "onnx coreml", "PRECISION": "float16", "BASELINE": "old.json"}
    _, arguments, _, _ = act(MODEL="my model.pth", IMAGE_SIZE="224", **given)
    assert arguments == [
        *("export", "--output", "out", "--precision", "float16"),
        *("--target", "onnx", "--target", "coreml", "--image-size", "224"),
        *("--baseline", "old.json", "--report", str(tmp_path / "slide-deploy.md")),
        *("--report", "out/report.xml", "--", "my model.pth"),
    ]


def test_artifacts_are_verified(act, tmp_path):
    _, arguments, _, _ = act(MODEL="m.pth", ARTIFACTS="a b.onnx\n\n-c.mlpackage\n")
    assert arguments == [
        *("verify", "--against", "m.pth", "--report", "out/report.html"),
        *("--report", "out/report.json", "--report", str(tmp_path / "slide-deploy.md")),
        *("--report", "out/report.xml", "--", "a b.onnx", "-c.mlpackage"),
    ]


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
