"""Draws the detection curve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.mutation.analysis import detected_above
from benchmarks.mutation.curve import CHANGES, LAYERS
from benchmarks.mutation.outcome import CurvePoint

__all__ = ["draw_curve"]


def draw_curve(points: Sequence[CurvePoint], path: Path) -> None:
    """Draw the share of detected changes above the noise, by kind of layer, as an SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for layer in LAYERS:
        axes.plot(*_line([p for p in points if p.layer == layer]), marker="o", ms=3, label=layer)
    axes.plot(*_line(points), color="black", linewidth=2.5, label="all")
    axes.set_xscale("log")
    axes.set_xlabel("change of one weight, %")
    axes.set_ylabel("detected, % of changes above the noise")
    axes.set_ylim(-2, 102)
    axes.invert_xaxis()
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without a date and with fixed ids, so that the same results write the same file.
    with mpl.rc_context({"svg.hashsalt": "mutation"}):
        figure.savefig(path, metadata={"Date": None})


def _line(points: Sequence[CurvePoint]) -> tuple[list[float], list[float]]:
    changes, shares = [], []
    for change in CHANGES:
        detected, above = detected_above(points, change)
        if above:
            changes.append(100 * change)
            shares.append(100 * detected / above)
    return changes, shares
