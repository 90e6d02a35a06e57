"""slide-deploy debug: where an artifact loses accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slide_deploy.cli import options as cli
from slide_deploy.cli.model import load_model

__all__ = ["precision"]

Artifact = Annotated[Path, typer.Argument(metavar="ARTIFACT", help="An artifact of any precision.")]
Against = Annotated[Path, typer.Option(help="Checkpoint that it was exported from.")]
Inputs = Annotated[
    str | None,
    typer.Option(
        "--calibration",
        metavar="FOLDER|FILE",
        help="Inputs to compare on, as for an export; four are taken.",
        show_default="synthetic images",
    ),
]
Chart = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Draw the curve to a .png or .svg.")
]


def precision(
    artifact: Artifact,
    against: Against,
    calibration: Inputs = None,
    factory: cli.Factory = None,
    inputs: cli.Inputs = None,
    weights: cli.WeightsOption = None,
    prefix: cli.Prefix = None,
    key: cli.Key = None,
    image_size: cli.ImageSize = None,
    chart: Chart = None,
    as_json: cli.AsJson = False,
    quiet: cli.Quiet = False,
) -> None:
    """Show the signal-to-noise ratio after each block, and where it falls."""
    from slide_deploy.pipeline.block_loss import block_losses
    from slide_deploy.report.block_losses import block_loss_table, save_loss_chart
    from slide_deploy.report.progress import progress_reporter
    from slide_deploy.report.terminal import make_console
    from slide_deploy.utils.records import to_json

    with progress_reporter(quiet=quiet) as progress:
        progress(f"loading {against.name}")
        model = load_model(against, weights, image_size, False, factory, inputs, prefix, key)
        found = block_losses(artifact, model, calibration=calibration, progress=progress)
        if chart is not None:
            save_loss_chart(found, chart)
    if as_json:
        typer.echo(to_json(found), nl=False)
    elif not quiet:
        console = make_console()
        console.print(block_loss_table(found, width=console.width))
