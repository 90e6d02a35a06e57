"""The check of a runner that failed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from slide_deploy.artifacts.manifest import Artifact
from slide_deploy.types import TensorSpec, Verdict
from slide_deploy.verification import check as checking
from slide_deploy.verification import runner
from slide_deploy.verification.check import check_artifact
from slide_deploy.verification.judge import VerificationPolicy

SPECS = (TensorSpec("x", (1, 2)),)


@pytest.fixture
def artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"no model")
    monkeypatch.setattr(checking.registry, "require", lambda *_: None)
    return path


def checked(path: Path, precision: str = "float32", known: tuple[str, ...] = ()):
    record = Artifact("onnx", path.name, precision, "", 0, SPECS, SPECS)
    nothing = lambda *_: ()  # noqa: E731
    reference = SimpleNamespace(expect=nothing, fresh=nothing, nan=nothing, precision="")
    return check_artifact(path, reference, record, VerificationPolicy(), lambda step: None, known)


def test_a_crashed_runner_leaves_its_standard_error(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash = subprocess.CompletedProcess([], -11, stdout="", stderr="first line\nlast line\n")
    monkeypatch.setattr(runner, "_run_worker", lambda *_: crash)
    found = checked(artifact)
    assert found.verdict is Verdict.FAIL
    assert "crashed on m.onnx (exit -11): last line" in found.problems[0]
    assert "--debug" in found.problems[0]
    assert found.details == "first line\nlast line\n"


def test_a_precision_that_no_scheme_has_fails(artifact: Path) -> None:
    found = checked(artifact, "float7")
    assert found.verdict is Verdict.FAIL
    assert "unknown precision 'float7'" in found.problems[0]
    assert found.precision == "float7"


@pytest.mark.parametrize(
    ("kind", "known", "verdict"),
    [
        ("NotSupported", (), Verdict.NOT_RUN),
        ("ArtifactError", (), Verdict.FAIL),
        ("NotSupported", ("it has changed",), Verdict.FAIL),
    ],
)
def test_only_a_sound_file_that_cannot_run_here_is_not_run(
    artifact: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    known: tuple[str, ...],
    verdict: Verdict,
) -> None:
    about = {"problem": "no lstm", "hint": "", "details": "", "kind": kind}
    done = subprocess.CompletedProcess([], 0, stdout=json.dumps(about), stderr="")
    monkeypatch.setattr(runner, "_run_worker", lambda *_: done)
    found = checked(artifact, known=known)
    assert found.verdict is verdict
    assert found.problems == (*known, "no lstm")
