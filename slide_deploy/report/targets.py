"""The table of `slide-deploy targets`."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from slide_deploy import registry
from slide_deploy.report.fitting import fitted_table

__all__ = ["targets_table"]


_COLUMNS = ("target", "also", "writes", "export here", "run here", "missing")
_WANTED = ("writes", "also")
_KEPT = ("target", "export here", "run here", "missing")


def targets_table(width: int = 160) -> RenderableType:
    """One row per target: export, run, and the install command for what is missing.

    Columns that `width` leaves no room for are left out.
    """
    rows = []
    commands: dict[str, None] = {}
    for name in registry.target_names():
        exporter, runtime = registry.exporter(name), registry.runtime(name)
        cannot_export = registry.missing_packages(exporter.packages)
        cannot_run = registry.missing_packages(runtime.packages)
        missing = tuple(dict.fromkeys(cannot_export + cannot_run))
        reason = exporter.unsupported()
        if missing and not reason:
            commands[registry.install_command(exporter.extra)] = None
        row = (
            name,
            ", ".join(exporter.aliases) or "–",
            exporter.file_name("NAME"),
            _mark("no" if cannot_export else "yes"),
            _mark("no" if cannot_run else runtime.fidelity().value),
            reason or ", ".join(missing) or "–",
        )
        rows.append(row)
    table = fitted_table(_COLUMNS, rows, width, kept=_KEPT, wanted=_WANTED, left=_COLUMNS)
    return Group(table, *(Text(f"to add: {command}") for command in commands))


def _mark(word: str) -> Text:
    return Text(
        word, style={"no": "red", "simulated": "yellow", "interpreted": "yellow"}.get(word, "green")
    )
