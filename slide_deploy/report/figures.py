"""Figures of matplotlib, drawn to files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slide_deploy.errors import MissingLibrary, UsageError
from slide_deploy.utils.staging import staged

__all__ = ["chart_figure", "known_chart", "save_figure"]

CHARTS = (".png", ".svg")


def known_chart(path: Path) -> Path:
    """The path itself; UsageError for a suffix that no chart has."""
    if path.suffix not in CHARTS:
        raise UsageError(f"chart {path} has no known suffix", f"use {' or '.join(CHARTS)}")
    return path


def chart_figure(path: Path, height: float) -> Any:
    """An empty figure, 8 by `height` inches, for a chart that `path` can hold.

    Raises UsageError for an unknown suffix, and MissingLibrary without matplotlib.
    """
    known_chart(path)
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingLibrary("drawing a chart", ("matplotlib",), "chart") from None
    return Figure(figsize=(8, height), layout="constrained")


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure to `path`, atomically."""
    with staged(path) as scratch:
        figure.savefig(scratch, dpi=150)
