"""On a full disk: exit code 2, no files left, and earlier artifacts unchanged."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

RunCli = Callable[..., Any]
Listing = Callable[[Path], dict[str, bytes]]

SIZE = "16k"  # less than the smallest artifact


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty file system of a few kilobytes, or of the size that the test gives."""
    folder = tmp_path / "disk"
    folder.mkdir()
    size = getattr(request, "param", SIZE)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount a small tmpfs here: {error}")
    try:
        yield folder
    finally:
        # a converter may still hold a file of it open: the mount goes when that does
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


@pytest.mark.parametrize(
    "target",
    [
        "onnx",
        "openvino",
        "coreml",
    ],
)
def test_exporting_to_a_full_disk(
    run_cli: RunCli, small_disk: Path, lone_module: Path, target: str
) -> None:
    result = run_cli(
        "export", lone_module, "--image-size", "6x7", "-t", target, "-o", small_disk / "out"
    )
    result.refused(2, "no space left on device")
    assert max(map(len, result.lines)) < 300
    assert os.listdir(small_disk) == []


def test_exporting_torchscript_to_a_full_disk(small_disk: Path, lone_module: Path) -> None:
    program = "import sys; from slide_deploy.cli import main; main()"
    done = subprocess.run(
        [
            *(sys.executable, "-c", program, "export", str(lone_module), "--image-size", "6x7"),
            *("-t", "torchscript", "-o", str(small_disk / "out")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr[-2000:]
    assert "no space left on device" in done.stderr
    assert os.listdir(small_disk) == []


def test_fusing_to_a_full_disk(run_cli: RunCli, small_disk: Path, lone_module: Path) -> None:
    result = run_cli(
        "fuse", lone_module, "--image-size", "6x7", "-o", small_disk / "fused.safetensors"
    )
    result.refused(2, "no space left on device")
    assert os.listdir(small_disk) == []


def test_an_earlier_artifact_survives_a_full_disk(
    run_cli: RunCli, small_disk: Path, lone_module: Path, listing: Listing
) -> None:
    (small_disk / "lone.onnx").write_bytes(b"good" * 1000)
    before = listing(small_disk)
    result = run_cli("export", lone_module, "--image-size", "6x7", "-t", "onnx", "-o", small_disk)
    result.refused(2, "no space left on device")
    assert listing(small_disk) == before


@pytest.mark.parametrize("small_disk", ["72k"], indirect=True)
def test_a_disk_with_room_for_a_part_of_an_openvino_model(
    run_cli: RunCli, small_disk: Path, lone_module: Path
) -> None:
    output = small_disk / "out"
    result = run_cli("export", lone_module, "--image-size", "6x7", "-t", "openvino", "-o", output)
    result.refused(2, "no space left on device")
    assert os.listdir(small_disk) == []


# The first has no room for the probes, the second none for the outputs.
@pytest.mark.parametrize("small_disk", [SIZE, "200k"], indirect=True)
def test_verifying_with_a_full_temporary_folder(
    run_cli: RunCli,
    small_disk: Path,
    artifact: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    result = run_cli("verify", artifact("torchscript"))
    result.refused(2, "cannot write temporary files: no space left on device", "TMPDIR")
    assert os.listdir(small_disk) == []
