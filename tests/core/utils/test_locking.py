"""Processes that write to one folder wait for each other, even if one dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from slide_deploy.utils.locking import locked_folder
from slide_deploy.utils.staging import staged_folder

# Writes its name into a folder; says when it has the lock, and then waits for a line.
WRITER = """
import signal, sys
from pathlib import Path
from slide_deploy.utils.staging import staged_folder

# A shell may have started the tests with SIGINT ignored, which processes inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
folder, name = sys.argv[1:]
print("started", flush=True)
with staged_folder(Path(folder)) as scratch:
    (scratch / name).write_text(name)
    print("holds", flush=True)
    sys.stdin.readline()
"""


def writer(folder: Path, name: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert said(process) == "started"
    return process


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_waiting_writer_leaves_the_work_of_a_living_one(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    first = writer(folder, "first")
    assert said(first) == "holds"
    second = writer(folder, "second")
    (scratch,) = folder.glob(".slide-deploy-*")
    assert (scratch / "first").read_text() == "first"
    first.communicate("\n")
    assert said(second) == "holds"
    second.communicate("\n")
    assert (first.returncode, second.returncode) == (0, 0)
    assert sorted(os.listdir(folder)) == ["first", "second"]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL], ids=["SIGINT", "SIGKILL"])
def test_a_waiting_writer_outlives_the_one_that_made_the_folder(
    tmp_path: Path, stop: signal.Signals
) -> None:
    folder = tmp_path / "new" / "out"
    first = writer(folder, "first")
    assert said(first) == "holds"
    second = writer(folder, "second")
    first.send_signal(stop)
    first.communicate()
    assert said(second) == "holds"
    second.communicate("\n")
    assert second.returncode == 0
    assert os.listdir(folder) == ["second"]


def test_a_folder_that_vanishes_before_the_lock_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "new" / "out"
    mkdir, calls = Path.mkdir, []

    def vanishing(path: Path, *arguments: object, **named: object) -> None:
        mkdir(path, *arguments, **named)  # type: ignore[arg-type]
        if path == folder and not calls:
            calls.append(path)
            folder.rmdir()
            folder.parent.rmdir()

    monkeypatch.setattr(Path, "mkdir", vanishing)
    with staged_folder(folder) as scratch:
        (scratch / "file").write_text("x")
    assert os.listdir(folder) == ["file"]
    assert calls


def test_a_folder_that_always_vanishes_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "mkdir", lambda *arguments, **named: None)
    with pytest.raises(FileNotFoundError), locked_folder(tmp_path / "never"):
        pass


def test_the_lock_leaves_nothing_behind(tmp_path: Path) -> None:
    with locked_folder(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert os.listdir(tmp_path) == []
