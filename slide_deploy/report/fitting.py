"""Tables that leave columns out where the terminal is too narrow for them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

__all__ = ["fitted_table"]


def fitted_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    width: int,
    *,
    kept: Collection[str],
    wanted: Sequence[str],
    left: Collection[str],
    title: Text | None = None,
) -> Table:
    """As many of `columns` as `width` has room for without breaking a word.

    `kept` are always shown; `wanted` claim their place in this order. `left` are justified so.
    """
    needed = {
        name: 3 + max(cell_len(str(cell)) for cell in (name, *(row[index] for row in rows)))
        for index, name in enumerate(columns)
    }
    room = width - 1 - sum(needed[name] for name in kept)
    shown = set(kept)
    for name in wanted:
        if needed[name] <= room:
            shown.add(name)
            room -= needed[name]
    table = Table(title=title, title_justify="left")
    for name in columns:
        if name in shown:
            table.add_column(
                name,
                justify="left" if name in left else "right",
                overflow="fold",
                no_wrap=name not in left,
            )
    for row in rows:
        table.add_row(*(c for name, c in zip(columns, row, strict=True) if name in shown))
    return table
