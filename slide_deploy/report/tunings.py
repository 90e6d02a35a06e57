"""Renders the results of `tune` as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from slide_deploy.bench.tuning import Tuning

__all__ = ["tuning_table"]


def tuning_table(found: Tuning) -> RenderableType:
    """One row per kind of attention and lowering; the fastest of each kind is marked."""
    table = Table(title=f"lowerings for {found.target}", title_justify="left")
    table.add_column("attention")
    table.add_column("lowering")
    table.add_column("median", justify="right")
    table.add_column("ratio", justify="right")
    table.add_column("")
    for kind in dict.fromkeys(measured.layers for measured in found.measured):
        rows = [measured for measured in found.measured if measured.layers == kind]
        rows.sort(key=lambda row: row.ratio if row.ratio is not None else float("inf"))
        height, width = rows[0].resolution
        for index, row in enumerate(rows):
            timed = row.median_ms is not None and row.ratio is not None
            more = f" and {len(kind) - 1} more" if len(kind) > 1 else ""
            table.add_row(
                f"{kind[0] or 'the module'}{more}, {height}x{width}" if index == 0 else "",
                row.form,
                f"{row.median_ms:.2f} ms" if timed else "–",
                f"{row.ratio / (rows[0].ratio or 1):.2f}" if timed and row.ratio else "–",
                Text("fastest", style="bold green")
                if index == 0
                else Text(row.problem, style="red"),
                end_section=index == len(rows) - 1,
            )
    return Group(table, Text(f"saved to {found.path}", style="dim"))
