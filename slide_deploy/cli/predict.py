"""slide-deploy predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import slide_deploy
from slide_deploy.cli import options as cli
from slide_deploy.cli.model import load_model
from slide_deploy.cli.packaging import PicturePreprocess

__all__ = ["predict"]

Artifact = Annotated[Path, typer.Argument(metavar="ARTIFACT", help="Artifact of a classifier.")]
Images = Annotated[
    list[Path], typer.Argument(metavar="IMAGE...", help="Pictures, or folders of pictures.")
]
Against = Annotated[Path | None, typer.Option(help="Checkpoint to compare the best class with.")]
Labels = Annotated[
    Path | None,
    typer.Option(
        help="Names of the classes in order: one per line, or JSON.",
        show_default="those in the artifact, or class numbers",
    ),
]
Top = Annotated[int, typer.Option(min=1, help="Number of classes to show for each picture.")]


def predict(
    artifact: Artifact,
    image: Images,
    against: Against = None,
    weights: cli.WeightsOption = None,
    image_size: cli.ImageSize = None,
    preprocess: PicturePreprocess = None,
    labels: Labels = None,
    top: Top = 5,
    as_json: cli.AsJson = False,
    quiet: cli.Quiet = False,
) -> None:
    """Classify pictures with an artifact, in its own runtime."""
    from slide_deploy.report.predictions import predictions_table
    from slide_deploy.report.progress import progress_reporter
    from slide_deploy.report.terminal import make_console
    from slide_deploy.utils.records import to_json

    with progress_reporter(quiet=quiet) as progress:
        model = load_model(against, weights, image_size) if against else None
        found = slide_deploy.predict(
            artifact,
            image,
            model=model,
            preprocessing=preprocess,
            labels=labels,
            top=top,
            progress=progress,
        )
    if as_json:
        typer.echo(to_json(found), nl=False)
    elif not quiet:
        make_console().print(predictions_table(found))
    raise typer.Exit(1 if any(own.problem for own in found.predictions) else 0)
