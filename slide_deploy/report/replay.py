"""Renders the comparison of artifacts that were made again with the earlier ones."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from slide_deploy.report.text import number
from slide_deploy.utils.text import one_line
from slide_deploy.verification.replay import Likeness, Replay, ReplayedArtifact

__all__ = ["REPLAY_COLUMNS", "replay_lines", "replay_rows", "replay_table"]

REPLAY_COLUMNS = ("target", "file", "result", "sha256 then", "now", "difference")

_STYLE = {Likeness.SAME_BYTES: "green", Likeness.SAME_NUMBERS: "yellow"}


def replay_table(replay: Replay) -> RenderableType:
    """A row per artifact, then the packages whose versions differ."""
    table = Table(title="compared with the earlier export", title_justify="left")
    for column in REPLAY_COLUMNS:
        table.add_column(column, justify="right" if column == "difference" else "left")
    for own, row in zip(replay.artifacts, replay_rows(replay), strict=True):
        cells = [Text(one_line(cell)) for cell in row]
        cells[2].style = _STYLE.get(own.likeness, "bold red")
        table.add_row(*cells)
    return Group(table, *(Text(line) for line in replay_lines(replay)))


def replay_rows(replay: Replay) -> list[tuple[str, ...]]:
    """The cells of each artifact, by REPLAY_COLUMNS."""
    return [
        (
            own.target,
            own.path,
            own.likeness.value,
            own.before[:12],
            own.now[:12] or "–",
            "–" if own.max_abs_difference is None else number(own.max_abs_difference, ".1e"),
        )
        for own in replay.artifacts
    ]


def replay_lines(replay: Replay) -> tuple[str, ...]:
    """What explains the differences, one line each."""
    lines = [line for own in replay.artifacts for line in _explained(own)]
    lines += [
        f"{change.package}: {change.before or 'not installed'} then, "
        f"{change.now or 'not installed'} now"
        for change in replay.versions
    ]
    if not replay.versions:
        lines.append("Python, the system and all libraries have the versions of then.")
    return tuple(map(one_line, lines))


def _explained(own: ReplayedArtifact) -> list[str]:
    lines = [f"{own.path}: {own.reason}"] if own.reason else []
    return [*lines, f"{own.path}: differs in {', '.join(own.files)}"] if own.files else lines
