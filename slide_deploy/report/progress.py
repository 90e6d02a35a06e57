"""Shows progress on stderr: one live line on a terminal, otherwise a line per phase."""

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
    """Yield a function to call with the name of each step when it begins.

    A step is `phase` or `phase: detail`. If stderr is not a terminal, each phase is printed once,
    without its details. `quiet` prints nothing.
    """
    # The current stderr, because sys.stderr is redirected while converters run.
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
            with suppress(OSError):  # stderr may be closed
                console.print(phase, style="dim", highlight=False, markup=False, soft_wrap=True)

    return show
