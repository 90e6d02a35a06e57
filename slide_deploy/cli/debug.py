"""slide-deploy debug: where an artifact loses accuracy, or computes something else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slide_deploy.cli import options as cli
from slide_deploy.cli.model import load_model

__all__ = ["precision", "reduce"]

Artifact = Annotated[Path, typer.Argument(metavar="ARTIFACT", help="An artifact of any precision.")]
Against = Annotated[Path, typer.Option(help="Checkpoint that it was exported from.")]
Inputs = Annotated[
    str | None,
    typer.Option(
        "--calibration",
        metavar="FOLDER|FILE",
        help="Inputs to compare on, as export --calibration takes them; the first four are used.",
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
    from slide_deploy.report.figures import known_chart
    from slide_deploy.report.progress import progress_reporter
    from slide_deploy.report.terminal import make_console
    from slide_deploy.utils.records import to_json

    chart = chart and known_chart(chart)
    with progress_reporter(quiet=quiet) as progress:
        progress(f"loading {against.name}")
        model = load_model(against, weights, image_size, False, factory, inputs, prefix, key)
        found = block_losses(artifact, model, calibration=calibration, progress=progress)
        if chart:
            save_loss_chart(found, chart)
    if as_json:
        typer.echo(to_json(found), nl=False)
    elif not quiet:
        console = make_console()
        console.print(block_loss_table(found, width=console.width))


def reduce(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="A float32 ONNX file.")],
    against: Against,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to write to.", show_default="NAME-piece"),
    ] = None,
    factory: cli.Factory = None,
    inputs: cli.Inputs = None,
    weights: cli.WeightsOption = None,
    prefix: cli.Prefix = None,
    key: cli.Key = None,
    image_size: cli.ImageSize = None,
    quiet: cli.Quiet = False,
) -> None:
    """Find the smallest part of an artifact that fails verification; write it to a file."""
    from slide_deploy.pipeline.reduce import reduce as find
    from slide_deploy.report.progress import progress_reporter
    from slide_deploy.report.terminal import make_console, report_table
    from slide_deploy.utils.text import one_line

    folder = output or Path(f"{artifact.stem}-piece")
    with progress_reporter(quiet=quiet) as progress:
        progress(f"loading {against.name}")
        model = load_model(against, weights, image_size, False, factory, inputs, prefix, key)
        found = find(artifact, model, folder, progress=progress)
    if quiet:
        return
    console = make_console()
    console.print(report_table(found.report, width=console.width))
    named = one_line(", ".join(found.operators))
    typer.echo(
        f"{len(found.operators)} of {found.total} operators: {named}.\n"
        f"Pieces that differ from a new export: {found.differing}; this one differs the most.\n"
        f"Verify it: slide-deploy verify {found.path} --golden {found.golden}"
    )
