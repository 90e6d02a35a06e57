"""Renders timings as a table and as a bar chart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from slide_deploy.report.figures import chart_figure, save_figure
from slide_deploy.report.fitting import fitted_table
from slide_deploy.report.text import estimate_lines, size_text

if TYPE_CHECKING:
    from slide_deploy.bench.latency import Benchmark

__all__ = ["save_chart", "timings_table"]

_COLUMNS = (
    *("artifact", "batch", "threads", "median", "p10 … p90", "images/s", "ratio", "peak memory"),
    "size",
)
_KEPT = ("artifact", "threads", "median", "ratio")
_WANTED = ("batch", "images/s", "p10 … p90", "peak memory", "size")


def timings_table(found: Benchmark, width: int = 160) -> RenderableType:
    """One row per artifact and number of threads; ratios are to the first, round by round.

    Columns that `width` leaves no room for are left out.
    """
    rows = [
        (
            timing.name,
            str(timing.batch),
            str(timing.threads),
            f"{timing.median_ms:.2f} ms",
            f"{timing.p10_ms:.2f} … {timing.p90_ms:.2f}",
            f"{timing.throughput:.1f}",
            f"{timing.ratio:.3f}",
            size_text(timing.peak_memory_bytes) if timing.peak_memory_bytes else "–",
            size_text(timing.size_bytes),
        )
        for timing in found.timings
    ]
    table = fitted_table(_COLUMNS, rows, width, kept=_KEPT, wanted=_WANTED, left=("artifact",))
    ran = dict.fromkeys(f"{t.name}: {t.runtime}, {t.precision}" for t in found.timings)
    how = (
        f"{found.processor}, {found.cores} cores. {found.rounds} rounds of "
        f"{found.calls_per_round} calls in turn after {found.warmup} to warm up; ratio: to the "
        "first, median over rounds."
    )
    estimated = dict.fromkeys(
        f"{t.name}: {line}" for t in found.timings for line in estimate_lines(t.estimates)
    )
    notes = [Text(f"note: {note}", style="yellow") for note in found.notes]
    return Group(table, *notes, *(Text(line, style="dim") for line in (*ran, *estimated, how)))


def save_chart(found: Benchmark, path: Path, title: str = "") -> None:
    """Draw medians as bars with p10 … p90, to a .png or .svg."""
    timings = found.timings[::-1]
    figure = chart_figure(path, height=1.2 + 0.42 * len(timings))
    axes = figure.subplots()
    medians = [timing.median_ms for timing in timings]
    low = [timing.median_ms - timing.p10_ms for timing in timings]
    high = [timing.p90_ms - timing.median_ms for timing in timings]
    labels = [f"{t.name}, {t.threads} thread{'' if t.threads == 1 else 's'}" for t in timings]
    bars = axes.barh(labels, medians, xerr=[low, high], color="#4c78a8")
    axes.bar_label(
        bars, [f" {t.median_ms:.1f} ms  ×{t.ratio:.2f}" for t in timings], padding=6, fontsize=9
    )
    axes.set_xlabel("milliseconds per call (median, p10 … p90)")
    axes.set_xlim(0, 1.35 * max(timing.p90_ms for timing in timings))
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        axes.set_title(title, loc="left")
    save_figure(figure, path)
