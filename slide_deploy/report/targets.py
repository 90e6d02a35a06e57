"""The table of `slide-deploy targets`."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from slide_deploy import registry

__all__ = ["targets_table"]


def targets_table() -> RenderableType:
    """One row per target, and the commands that install missing packages."""
    table = Table()
    for column in ("target", "also", "writes", "export here", "run here", "missing"):
        table.add_column(column)
    commands: dict[str, None] = {}
    for name in registry.target_names():
        exporter, runtime = registry.exporter(name), registry.runtime(name)
        cannot_export = registry.missing_packages(exporter.packages)
        cannot_run = registry.missing_packages(runtime.packages)
        missing = tuple(dict.fromkeys(cannot_export + cannot_run))
        if missing:
            commands[f"pip install 'slide-deploy[{exporter.extra}]'"] = None
        table.add_row(
            name,
            ", ".join(exporter.aliases) or "–",
            exporter.file_name("NAME"),
            _mark("no" if cannot_export else "yes"),
            _mark("no" if cannot_run else runtime.fidelity().value),
            ", ".join(missing) or "–",
        )
    return Group(table, *(Text(f"to install: {command}") for command in commands))


def _mark(word: str) -> Text:
    return Text(word, style={"no": "red", "interpreted": "yellow"}.get(word, "green"))
