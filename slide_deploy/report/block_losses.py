"""Renders the losses of an artifact's blocks as a table and as a curve."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from slide_deploy.report.figures import chart_figure, save_figure
from slide_deploy.report.fitting import fitted_table
from slide_deploy.report.text import number
from slide_deploy.utils.text import one_line

if TYPE_CHECKING:
    from slide_deploy.pipeline.block_loss import LossCurve

__all__ = ["block_loss_table", "save_loss_chart"]

_COLUMNS = ("block", "SNR", "loss", "")
BAR = 24  # characters of the largest loss


def block_loss_table(found: LossCurve, width: int = 160) -> RenderableType:
    """One row per block, with a bar as long as its loss."""
    losses = [loss.loss_db for loss in found.blocks if loss.loss_db > 0]
    most = max(losses, default=0.0)
    rows = [
        (
            Text(one_line(loss.block)),
            number(loss.snr_db, ".1f", " dB"),
            number(loss.loss_db, ".1f", " dB") if loss.loss_db > 0 else "–",
            "█" * round(BAR * loss.loss_db / most) if loss.loss_db > 0 else "",
        )
        for loss in found.blocks
    ]
    title = Text(one_line(f"{found.artifact}, {found.precision}: its blocks against float64"))
    table = fitted_table(
        _COLUMNS,
        rows,
        width,
        kept=("block", "SNR"),
        wanted=("loss", ""),
        left=("block", ""),
        title=title,
    )
    merged = sum(math.isnan(loss.snr_db) for loss in found.blocks)
    about = f"{found.runtime}, {found.runs} runs on inputs of {found.inputs}. Loss: against the "
    about += "lowest ratio before the block."
    if merged:
        about += f" {merged} blocks (–) have no value of their own: the converter merged them."
    return Group(table, Text(one_line(about), style="dim"))


def save_loss_chart(found: LossCurve, path: Path) -> None:
    """Draw the ratio after each block as a curve, to a .png or .svg."""
    own = [loss for loss in found.blocks if math.isfinite(loss.snr_db)][::-1]
    figure = chart_figure(path, height=1.2 + 0.26 * len(own))
    axes = figure.subplots()
    axes.plot([o.snr_db for o in own], [o.block for o in own], marker="o", color="#4c78a8")
    axes.set_xlabel("signal-to-noise ratio of the block's output, dB")
    axes.grid(axis="both", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{found.artifact}, {found.precision}", loc="left")
    save_figure(figure, path)
