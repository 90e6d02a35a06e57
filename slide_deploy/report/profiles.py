"""The table of `slide-deploy profiles`."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table

from slide_deploy.packaging.profiles import PROFILES, Profile

__all__ = ["profiles_table"]


def profiles_table() -> RenderableType:
    """One row per profile: what it is for, what it chooses, and what is not run."""
    table = Table()
    for column in ("profile", "for", "target", "precision", "input", "batch", "not run here"):
        table.add_column(column)
    for profile in PROFILES:
        table.add_row(*_row(profile))
    return table


def _row(profile: Profile) -> tuple[str, ...]:
    picture = "tensor" if profile.preprocess.value == "none" else "picture"
    choices = (profile.target.value, profile.precision.value, picture, profile.batch.value)
    return (profile.name, profile.title, *choices, profile.not_run or "–")
