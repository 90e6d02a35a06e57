"""slide-deploy evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import slide_deploy
from slide_deploy.cli import options as cli
from slide_deploy.cli.accuracy import LABELLED
from slide_deploy.cli.model import load_model
from slide_deploy.cli.packaging import PicturePreprocess
from slide_deploy.errors import UsageError

__all__ = ["evaluate"]


Artifacts = Annotated[
    list[Path], typer.Argument(metavar="ARTIFACT...", help="Artifacts of classifiers.")
]
Data = Annotated[
    str,
    typer.Option(
        metavar="FOLDER|FILE",
        help=f"Labelled images: {LABELLED}.",
    ),
]
Against = Annotated[Path | None, typer.Option(help="Checkpoint to compare with.")]
Labels = Annotated[
    Path | None,
    typer.Option(
        help="Names of the model's classes in order, one per line or as JSON, which the folders "
        "are named after.",
        show_default="those in the artifact, class numbers, or the names in alphabetical order",
    ),
]
MinTop1 = Annotated[
    float | None,
    typer.Option(min=0, max=100, help="Fail artifacts of a lower top-1 accuracy, in percent."),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        min=0, help="Largest loss of top-1 accuracy against --against, in points; more fails."
    ),
]


def evaluate(
    artifact: Artifacts,
    data: Data,
    against: Against = None,
    weights: cli.WeightsOption = None,
    image_size: cli.ImageSize = None,
    preprocess: PicturePreprocess = None,
    labels: Labels = None,
    min_top1: MinTop1 = None,
    max_drop: MaxDrop = None,
    threads: cli.Threads = 1,
    as_json: cli.AsJson = False,
    quiet: cli.Quiet = False,
) -> None:
    """Measure the accuracy of artifacts on labelled images, in their own runtimes."""
    if max_drop is not None and against is None:
        raise UsageError("--max-drop needs the checkpoint", "add --against model.pth")
    from slide_deploy.evaluation.accuracy import input_of
    from slide_deploy.evaluation.dataset import read_dataset
    from slide_deploy.evaluation.prediction import known_of
    from slide_deploy.report.evaluations import evaluation_table
    from slide_deploy.report.progress import progress_reporter
    from slide_deploy.report.terminal import make_console
    from slide_deploy.utils.records import to_json

    with progress_reporter(quiet=quiet) as progress:
        about = input_of(artifact[0])
        model = load_model(against, weights, image_size) if against else None
        way, names = known_of(about, preprocess, labels, model)
        if model and about.inputs[0].is_picture:
            from slide_deploy.loading.packaging import taking

            model = taking(model, way)
        images = read_dataset(data, about.inputs[0], way, names)
        found = slide_deploy.evaluate(
            artifact,
            images,
            model=model,
            min_top1=min_top1,
            max_drop=max_drop,
            threads=threads,
            progress=progress,
        )
    console = make_console(stderr=as_json)
    if as_json:
        typer.echo(to_json(found), nl=False)
    elif not quiet:
        console.print(evaluation_table(found, width=console.width))
    raise typer.Exit(1 if found.problems else 0)
