"""Progress: one live line on a terminal, otherwise a line per phase."""

from __future__ import annotations

import io
import sys

import pytest

from slide_deploy.report.progress import progress_reporter

STEPS = (
    "loading m.pth",
    "running the reference: normal",
    "running the reference: zeros",
    "exporting ONNX",
    "verifying m.onnx: running it",
    "running the reference: ramps",
    "verifying m.onnx: tracing its blocks",
)


def run(**options) -> None:
    with progress_reporter(**options) as progress:
        for step in STEPS:
            progress(step)


def test_elsewhere_each_phase_is_one_line(capsys):
    run()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "loading m.pth",
        "running the reference",
        "exporting ONNX",
        "verifying m.onnx",
    ]


def test_quiet_prints_nothing(capsys):
    run(quiet=True)
    assert capsys.readouterr() == ("", "")


def test_control_characters_of_a_name_do_not_reach_the_terminal(capsys):
    with progress_reporter() as progress:
        progress("loading \x1b[2J.pth")
    assert "\x1b" not in capsys.readouterr().err


def test_a_long_line_is_not_cut_or_wrapped(capsys):
    with progress_reporter() as progress:
        progress("loading " + "x" * 300)
    assert capsys.readouterr().err == "loading " + "x" * 300 + "\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("kind", "live"), [("xterm", True), ("dumb", False)])
def test_a_terminal_has_one_live_line_that_goes(monkeypatch, kind, live):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", kind)
    monkeypatch.delenv("NO_COLOR", raising=False)
    run()
    assert ("\x1b[2K" in terminal.getvalue()) is live


def test_a_stream_that_fails_does_not_stop_the_work(monkeypatch):
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stderr", Full())
    run()
