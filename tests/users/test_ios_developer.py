"""An iOS developer: a checkpoint, Linux, no Mac, and a package that has to run on an iPhone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.users.environments import DIGITS, call, fails, passes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_from_the_checkpoint_to_a_package_for_the_phone(
    user: Callable[..., Path], tmp_path: Path
) -> None:
    program = user("coreml") / "slide-deploy"

    shown = passes(program, "targets", folder=tmp_path)
    assert "coreml" in shown
    assert "interpreted" in shown
    assert "slide-swin" in passes(program, "inspect", DIGITS, folder=tmp_path).lower()

    # The names that one tries first.
    mistaken = fails(2, program, "export", "-t", "iOS12", DIGITS, folder=tmp_path)
    assert "did you mean 'ios'? known: coreml, onnx, openvino, torchscript, all" in mistaken
    old = ("export", "-t", "ios", "--deployment-target", "iOS14", DIGITS)
    assert "iOS15" in fails(2, program, *old, folder=tmp_path)
    opset = fails(2, program, "export", "-t", "ios", "--opset", "17", DIGITS, folder=tmp_path)
    assert "no option --opset" in opset
    assert not list(tmp_path.glob("*-deploy"))

    export = ("export", "-t", "ios", "--half", "--deployment-target", "iOS17", DIGITS, "-o", "out")
    said = passes(program, *export, folder=tmp_path)
    assert "passed" in said
    assert "the MIL interpreter" in said
    assert "float16" in said
    package = tmp_path / "out" / "slide_swin_digits.mlpackage"
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["checks"][0]["other_precision"] == []  # all of it may run on the Neural Engine
    assert all(part.stat().st_mode & 0o044 for part in package.rglob("*") if part.is_file())

    assert "passed" in passes(program, "verify", "out", folder=tmp_path)
    assert "iOS17" in passes(program, "coreml", "inspect", package, folder=tmp_path)
    passes(program, "coreml", "check", package, folder=tmp_path)
    picture = tmp_path / "input.npy"
    np.save(picture, np.zeros((1, 3, 32, 32), np.float32))
    run = ("coreml", "run", package, "--input", picture, "--output", "made.npz")
    passes(program, *run, folder=tmp_path)
    with np.load(tmp_path / "made.npz") as made:
        assert [made[name].shape for name in made.files] == [(1, 10)]

    # A package that lost a byte on the way.
    weights = next(package.rglob("weight.bin"))
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "has changed since" in fails(1, program, "verify", "out", folder=tmp_path)
    assert call(program, "coreml", "inspect", tmp_path / "absent.mlpackage").returncode == 2
