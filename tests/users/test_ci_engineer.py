"""A CI engineer: jobs that fail when they must, machines without torch, reports for other tools."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.users.environments import MODULE, call, fails, passes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_from_an_exported_folder_to_a_job_that_guards_it(
    user: Callable[..., Path], tmp_path: Path
) -> None:
    export = ("export", "-t", "onnx", MODULE, "--image-size", "8", "-o", "out")
    passes(sys.executable, "-m", "slide_deploy", *export, folder=tmp_path)
    programs = user("", "onnxruntime", "onnx")
    program = programs / "slide-deploy"
    assert call(programs / "python", "-c", "import torch").returncode == 1

    said = passes(program, "verify", "out", "--report", "report.xml", folder=tmp_path)
    assert "passed" in said
    [suite] = ET.parse(tmp_path / "report.xml").getroot().iter("testsuite")
    assert suite.get("failures") == "0"
    assert float(suite.get("time", "0")) > 0
    for way in (("--json",), ("--quiet", "--report", "-")):
        printed = passes(program, "verify", "out", *way, folder=tmp_path)
        assert json.loads(printed)["verdict"] == "pass"

    # The baseline is the report of the export.
    baseline = ("verify", "out", "--baseline", "out/report.json")
    passes(program, *baseline, folder=tmp_path)
    changed = json.loads((tmp_path / "out" / "report.json").read_text())
    changed["source"]["sha256"] = "0" * 64
    (tmp_path / "other.json").write_text(json.dumps(changed))
    other = ("verify", "out", "--baseline", "other.json")
    assert "source changed" in fails(1, program, *other, folder=tmp_path)

    # What needs the checkpoint says so; what is not there too.
    assert "--against" in fails(2, program, "verify", "out", "--trace", folder=tmp_path)
    assert "does not exist" in fails(2, program, "verify", "absent", folder=tmp_path)
    torch = fails(3, program, "verify", "out", "--against", MODULE, folder=tmp_path)
    assert "pip install" in torch

    manifest = tmp_path / "out" / "manifest.json"
    wrong = ("verify", "out", "--manifest-sha256", "0" * 64)
    assert "SHA-256" in fails(1, program, *wrong, folder=tmp_path)
    assert call("sha256sum", manifest).returncode == 0
    artifact = tmp_path / "out" / "module_dat_default.onnx"
    artifact.write_bytes(artifact.read_bytes() + b" ")
    broken = fails(1, program, "verify", "out", "--report", "broken.xml", folder=tmp_path)
    assert "has changed since" in broken
    [suite] = ET.parse(tmp_path / "broken.xml").getroot().iter("testsuite")
    assert suite.get("failures") == "1"
