"""slide-deploy targets."""

from __future__ import annotations

__all__ = ["targets"]


def targets() -> None:
    """Show what this machine can export and run, and what to install for the rest."""
    from slide_deploy.report.targets import targets_table
    from slide_deploy.report.terminal import make_console

    console = make_console()
    console.print(targets_table(width=console.width))
