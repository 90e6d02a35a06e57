"""Renders an evaluation as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from slide_deploy.report.fitting import fitted_table
from slide_deploy.report.text import number, size_text
from slide_deploy.utils.text import one_line

if TYPE_CHECKING:
    from slide_deploy.evaluation.accuracy import Accuracy, Evaluation

__all__ = ["evaluation_table"]

_COLUMNS = ("artifact", "size", "top-1", "top-5", "agreement", "latency", "runtime")
_WANTED = ("latency", "agreement", "size", "top-5", "runtime")
_LEFT = ("artifact", "runtime")


def evaluation_table(found: Evaluation, width: int = 160) -> RenderableType:
    """One row per artifact, the checkpoint first; then problems and the classes most confused."""
    every = (*((found.reference,) if found.reference else ()), *found.artifacts)
    title = Text(one_line(f"{found.images} images of {found.data}, {len(found.classes)} classes"))
    table = fitted_table(
        _COLUMNS,
        [_row(own) for own in every],
        width,
        kept=("artifact", "top-1"),
        wanted=_WANTED,
        left=_LEFT,
        title=title,
    )
    problems = [Text(one_line(problem), style="bold red") for problem in found.problems]
    confused = [Text(line, style="dim") for own in every if (line := _confused(own))]
    ran = dict.fromkeys(f"{own.name}: {own.runtime}, {own.precision}" for own in found.artifacts)
    latency = "Latency: median of a batch, alternating between the artifacts."
    return Group(
        table, *problems, *confused, *(Text(one_line(t), style="dim") for t in (*ran, latency))
    )


def _row(own: Accuracy) -> tuple[str | Text, ...]:
    return (
        Text(one_line(own.name)),
        size_text(own.size_bytes) if own.size_bytes else "–",
        f"{own.top1:.2f} %",
        f"{own.top5:.2f} %",
        number(own.agreement, ".2f", " %"),
        number(own.latency_ms, ".2f", " ms"),
        own.fidelity.value if own.fidelity else own.runtime,
    )


def _confused(own: Accuracy) -> str:
    pairs = ", ".join(f"{c.label} for {c.answer} ({c.count})" for c in own.confusions)
    return one_line(f"{own.name}, most confused: {pairs}") if pairs else ""
