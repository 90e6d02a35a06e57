"""After kill -9 and concurrent exports, a folder has either the old or the new files."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[1] / "golden"

# Dies at the n-th call of whatever changes names or content on disk while it swaps in.
KILLED = """
import os, signal, sys
from pathlib import Path
from slide_deploy.utils import staging

folder, deadline = Path(sys.argv[1]), int(sys.argv[2])
calls = 0

def dying(function):
    def call(*arguments, **named):
        global calls
        calls += 1
        if calls == deadline:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return call

staging._sync = dying(staging._sync)
staging._swap_names = dying(staging._swap_names)
staging.os.replace = dying(staging.os.replace)
staging.shutil.rmtree = dying(staging.shutil.rmtree)
with staging.staged_folder(folder) as scratch:
    (scratch / "model.onnx").write_text("new")
    (scratch / "model_openvino_model").mkdir()
    for part in ("model.xml", "model.bin"):
        (scratch / "model_openvino_model" / part).write_text("new")
    (scratch / "manifest.json").write_text("new")
print(calls)
"""


def old_folder(path: Path) -> Path:
    (path / "model_openvino_model").mkdir(parents=True)
    for part in ("model.onnx", "manifest.json"):
        (path / part).write_text("old")
    for part in ("model.xml", "model.bin"):
        (path / "model_openvino_model" / part).write_text("old")
    return path


def run_to_death(folder: Path, deadline: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", KILLED, str(folder), str(deadline)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def contents(folder: Path) -> dict[str, set[str]]:
    parts = {part.name: part for part in folder.iterdir() if not part.name.startswith(".")}
    return {
        name: {file.read_text() for file in (part.iterdir() if part.is_dir() else [part])}
        for name, part in parts.items()
    }


def test_killed_at_any_step_leaves_each_artifact_old_or_new(tmp_path):
    steps = int(run_to_death(old_folder(tmp_path / "whole"), 0).stdout)
    assert steps >= 6
    for step in range(1, steps + 1):
        folder = old_folder(tmp_path / str(step))
        assert run_to_death(folder, step).returncode == -9
        found = contents(folder)
        assert found.keys() == {"model.onnx", "model_openvino_model", "manifest.json"}
        assert all(len(texts) == 1 for texts in found.values()), (step, found)
        # The manifest is never ahead of what it describes.
        if found["manifest.json"] == {"new"}:
            assert set.union(*found.values()) == {"new"}


def test_the_next_export_clears_what_a_killed_one_left(tmp_path):
    folder = old_folder(tmp_path / "out")
    run_to_death(folder, 1)
    assert list(folder.glob(".slide-deploy-*"))
    assert run_to_death(folder, 0).returncode == 0
    assert set.union(*contents(folder).values()) == {"new"}
    assert not list(folder.glob(".*"))


def export(name: str, folder: Path) -> subprocess.Popen[bytes]:
    checkpoint = GOLDEN / f"{name}.pth"
    command = [sys.executable, "-m", "slide_deploy", "export", "-t", "torchscript"]
    return subprocess.Popen(
        [*command, str(checkpoint), "-o", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def verify(folder: Path) -> int:
    command = [sys.executable, "-m", "slide_deploy", "verify", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.5, 1.5, 2.5, 3.5, 4.5])
def test_an_export_killed_after_some_seconds_leaves_a_folder_that_verifies(tmp_path, seconds):
    folder = tmp_path / "out"
    assert export("micro_ema", folder).wait() == 0
    running = export("micro_ema", folder)
    time.sleep(seconds)
    running.kill()
    running.wait()
    assert verify(folder) == 0


@pytest.mark.slow
def test_two_exports_into_one_folder_take_turns(tmp_path):
    folder = tmp_path / "out"
    both = [export("micro_ema", folder), export("micro_official", folder)]
    assert [process.wait() for process in both] == [0, 0]
    manifest = json.loads((folder / "manifest.json").read_text())
    last = Path(manifest["source"]["path_name"]).stem
    assert [artifact["path"] for artifact in manifest["artifacts"]] == [f"{last}.torchscript"]
    assert verify(folder) == 0
    assert not list(folder.glob(".*"))
