"""slide-deploy targets."""

from __future__ import annotations

__all__ = ["targets"]


def targets() -> None:
    """Show which targets this machine can export and run, and how to install missing libraries."""
    from slide_deploy.report.targets import targets_table
    from slide_deploy.report.terminal import make_console

    console = make_console()
    console.print(targets_table(width=console.width))
