"""Progress of long work, on stderr: one live line on a terminal, a line per phase elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from slide_deploy.utils.text import one_line

__all__ = ["progress_reporter"]


@contextmanager
def progress_reporter(*, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """A function to call with the name of each step as it begins.

    A step is `phase` or `phase: detail`. Where stderr is no terminal, each phase is printed once,
    without its details. `quiet` prints nothing.
    """
    # Bound to today's stderr: converters run with sys.stderr redirected.
    console = Console(file=sys.stderr)
    if quiet:
        yield lambda step: None
    elif not console.is_terminal or console.is_dumb_terminal:
        yield _phases(console)
    else:
        spinner, elapsed = SpinnerColumn(), TimeElapsedColumn()
        columns = spinner, TextColumn("{task.description}", markup=False), elapsed
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("starting")
            yield lambda step: progress.update(task, description=one_line(step))


def _phases(console: Console) -> Callable[[str], None]:
    printed: set[str] = set()

    def show(step: str) -> None:
        phase = one_line(step.partition(": ")[0])
        if phase not in printed:
            printed.add(phase)
            with suppress(OSError):  # progress that nobody can see is no reason to stop
                console.print(phase, style="dim", highlight=False, markup=False, soft_wrap=True)

    return show
