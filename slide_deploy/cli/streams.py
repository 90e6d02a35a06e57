"""Handles closed pipes, full disks and signals without a traceback."""

from __future__ import annotations

import codecs
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from slide_deploy.utils.signals import ENDING

__all__ = ["OutputLost", "drop_unwritten", "exit_on_signals", "safe_streams"]

# Replacements on terminals without Unicode; other characters become a question mark.
_ASCII = str.maketrans(
    {"×": "x", "–": "-", "−": "-", "…": "...", "→": "->", "≤": "<=", "‖": "|", "█": "#", "∞": "inf"}
)


def safe_streams() -> None:
    """Make sure that the standard streams exist and accept any character."""
    # The next file that is opened, perhaps an artifact, would get a closed descriptor.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or open(os.devnull, "w", errors="replace")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", errors="replace")  # noqa: SIM115
    codecs.register_error("slide-deploy", _nearest)
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="slide-deploy")
    if isinstance(out := sys.stdout, io.TextIOWrapper) and out is sys.__stdout__:
        sys.stdout = _Stdout(
            out.buffer,
            out.encoding,
            "slide-deploy",
            line_buffering=out.line_buffering,
            write_through=out.write_through,
        )


def _nearest(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end].translate(_ASCII)
    return "".join(sign if sign.isascii() else "?" for sign in text), error.end


def drop_unwritten() -> None:
    """Discard text that could not be written, which the interpreter would try to write again."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, OutputLost):
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())


class OutputLost(Exception):
    """Standard output cannot be written; `closed` if its reader closed the pipe."""

    def __init__(self, reason: OSError) -> None:
        super().__init__((reason.strerror or str(reason)).lower())
        self.closed = isinstance(reason, BrokenPipeError)


class _Stdout(io.TextIOWrapper):
    """Raises OutputLost, to distinguish standard output from other files."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise OutputLost(error) from error

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise OutputLost(error) from error


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into SystemExit 130, 143 and 129, so that staged files are
    removed."""
    # nohup and shells ignore a signal on purpose.
    before = {n: signal.getsignal(n) for n in ENDING if signal.getsignal(n) != signal.SIG_IGN}

    def stop(number: int, frame: FrameType | None) -> None:
        for other in before:  # a second signal must not interrupt the cleanup
            signal.signal(other, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
