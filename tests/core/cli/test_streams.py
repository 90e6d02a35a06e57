"""Terminals without Unicode, closed pipes, full disks and signals, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

RunCli = Callable[..., Any]
COMMAND = [sys.executable, "-m", "slide_deploy"]
posix = pytest.mark.skipif(os.name != "posix", reason="pipes and signals of POSIX")
NO_UNICODE = (
    {"PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
)


@pytest.mark.parametrize("environment", NO_UNICODE, ids=["PYTHONIOENCODING", "LC_ALL"])
@pytest.mark.parametrize("arguments", [["targets"], ["verify", "--help"]], ids=" ".join)
def test_a_terminal_without_unicode_gets_ascii(
    environment: dict[str, str], arguments: list[str]
) -> None:
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, env=os.environ | environment, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()
    assert b"+---" in done.stdout


def test_an_error_on_a_terminal_without_unicode() -> None:
    environment = os.environ | NO_UNICODE[0]
    done = subprocess.run(
        [*COMMAND, "inspect", "né.pth"], capture_output=True, env=environment, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        b"error: n?.pth does not exist",
        b"  -> check the path",
    ]


@posix
@pytest.mark.parametrize("arguments", [["targets"], ["--help"], ["--version"]], ids=" ".join)
def test_a_reader_that_has_gone_ends_it_quietly(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, *arguments], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@posix
@pytest.mark.parametrize("arguments", [["targets"], ["--help"]], ids=" ".join)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_under_standard_output_is_one_clear_line(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 70
    assert done.stderr.splitlines()[0] == (
        "error: cannot write to standard output: no space left on device"
    )
    assert len(done.stderr.splitlines()) == 2


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_verify_on_a_terminal_without_unicode_and_on_a_full_disk() -> None:
    artifact = Path(__file__).parents[2] / "fixtures" / "written-before" / "module.onnx"
    run = partial(subprocess.run, [*COMMAND, "verify", artifact], stderr=subprocess.PIPE)
    done = run(stdout=subprocess.PIPE, env=os.environ | NO_UNICODE[0], check=False)
    assert (done.returncode, done.stdout.isascii()) == (0, True), done.stderr
    with open("/dev/full", "w") as full:
        done = run(stdout=full, check=False)
    assert done.returncode == 70
    assert b"error: cannot write to standard output: no space left" in done.stderr
    assert b"Traceback" not in done.stderr


@posix
@pytest.mark.parametrize(
    ("redirection", "arguments", "code"),
    [(">&-", "targets", 0), ("2>&-", "inspect none.pth", 2), (">&- 2>&- <&-", "targets", 0)],
)
def test_closed_streams_change_no_exit_code(redirection: str, arguments: str, code: int) -> None:
    line = f'exec "{sys.executable}" -m slide_deploy {arguments} {redirection}'
    done = subprocess.run(["sh", "-c", line], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_an_error_that_nobody_can_read_keeps_its_exit_code() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*COMMAND, "inspect", "none.pth"], stderr=full, check=False)
    assert done.returncode == 2


# A shell may have started the tests with signals ignored, which processes inherit.
SLOW_EXPORT = """
import signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
def wait(*arguments):
    print("writing", flush=True)
    time.sleep(60)
import slide_deploy.pipeline.export
slide_deploy.pipeline.export.write_artifact = wait
from slide_deploy.cli import main
main()
"""


@posix
@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGHUP", marks=pytest.mark.slow)])
def test_a_signal_leaves_no_staged_folder(name: str, lone_module: Path, tmp_path: Path) -> None:
    number = getattr(signal, name)
    arguments = ["export", lone_module, "--image-size", "6x7", "-t", "pt", "-o", tmp_path / "out"]
    running = subprocess.Popen(
        [sys.executable, "-c", SLOW_EXPORT, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout
    assert running.stdout.readline() == "writing\n"
    assert list((tmp_path / "out").iterdir())
    running.send_signal(number)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 128 + number
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


# Runners that never end; each leaves its number in a file.
ENDLESS_CHECK = """
import signal, sys, types
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
from slide_deploy.verification import runner
runner.sys = types.SimpleNamespace(executable=sys.argv.pop(1))
from slide_deploy.cli import main
main()
"""


@posix
@pytest.mark.parametrize("name", ["SIGINT", pytest.param("SIGTERM", marks=pytest.mark.slow)])
def test_a_signal_ends_the_checks_that_run(name: str, lone_module: Path, tmp_path: Path) -> None:
    endless, note, scratch = (tmp_path / part for part in ("endless", "note", "tmp"))
    scratch.mkdir()
    noted = f"echo $$ > {note}.part && mv {note}.part {note}"
    endless.write_text(f"#!/bin/sh\n{noted}\nexec sleep 600\n")
    endless.chmod(0o755)
    arguments = ["export", lone_module, "--image-size", "6x7", "-t", "pt", "-o", tmp_path / "out"]
    running = subprocess.Popen(
        [sys.executable, "-c", ENDLESS_CHECK, *map(str, (endless, *arguments))],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(scratch)},
    )
    while not note.exists():
        assert running.poll() is None
        time.sleep(0.05)
    number = getattr(signal, name)
    running.send_signal(number)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 128 + number
    assert "Traceback" not in errors
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)
    assert not (tmp_path / "out").exists()
    assert list(scratch.glob("slide-deploy-*")) == []


@posix
def test_a_signal_that_was_ignored_stays_ignored() -> None:
    """As under nohup."""
    program = (
        "import os, signal\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from slide_deploy.cli.streams import exit_on_signals\n"
        "with exit_on_signals():\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
