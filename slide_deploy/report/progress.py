"""Progress of long work: a spinner with the current step on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

__all__ = ["steps"]


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """A function to call with the name of each step as it begins; writes to stderr."""
    # Bound to today's stderr: converters run with sys.stderr redirected.
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield lambda step: console.print(step, style="dim", highlight=False, markup=False)
        return
    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting")
        yield lambda step: progress.update(task, description=step)
