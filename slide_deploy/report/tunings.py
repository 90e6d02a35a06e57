"""Renders the results of `tune` as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from slide_deploy.bench.tuning import Measured, Tuning

__all__ = ["tuning_table"]


def tuning_table(found: Tuning) -> RenderableType:
    """One row per kind of attention and lowering; the fastest of each kind is marked."""
    table = Table(title=f"lowerings for {found.target}", title_justify="left")
    table.add_column("attention")
    table.add_column("lowering")
    estimated = any(measured.estimate for measured in found.measured)
    table.add_column("cycles" if estimated else "median", justify="right")
    table.add_column("ratio", justify="right")
    table.add_column("")
    for kind in dict.fromkeys(measured.layers for measured in found.measured):
        rows = [measured for measured in found.measured if measured.layers == kind]
        rows.sort(key=lambda row: row.rank)
        height, width = rows[0].resolution
        for index, row in enumerate(rows):
            more = f" and {len(kind) - 1} more" if len(kind) > 1 else ""
            table.add_row(
                f"{kind[0] or 'the module'}{more}, {height}x{width}" if index == 0 else "",
                row.form,
                _cost(row),
                f"{row.ratio / (rows[0].ratio or 1):.2f}" if row.ratio else "–",
                Text("fastest", style="bold green") if index == 0 else _remark(row),
                end_section=index == len(rows) - 1,
            )
    told = f"Estimated by {_tools(found)}. Nothing was measured.\n" if estimated else ""
    return Group(table, Text(f"{told}saved to {found.path}", style="dim"))


def _cost(row: Measured) -> str:
    if row.estimate:
        return f"{row.estimate.cycles:,}"
    return "–" if row.median_ms is None else f"{row.median_ms:.2f} ms"


def _remark(row: Measured) -> Text:
    if row.estimate and row.estimate.on_cpu:
        return Text(f"on the CPU: {', '.join(row.estimate.on_cpu)}", style="yellow")
    return Text(row.problem, style="red")


def _tools(found: Tuning) -> str:
    own = (measured.estimate for measured in found.measured)
    return ", ".join(dict.fromkeys(f"{e.tool} for {e.device}" for e in own if e))
