"""Options for what artifacts contain beside the model: preprocessing and labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from slide_deploy.loading.loader import Model

__all__ = ["Labels", "PicturePreprocess", "Preprocess", "packaged"]

PANEL = "Package"

Preprocess = Annotated[
    str | None,
    typer.Option(
        metavar="auto|imagenet|FILE.json|none",
        help="Preprocessing that the artifact contains: it takes a picture, uint8 in RGB, of the "
        "model's size. auto is that of the checkpoint's training, or imagenet.",
        show_default="none: the artifact takes a normalised tensor",
        rich_help_panel=PANEL,
    ),
]
PicturePreprocess = Annotated[
    str | None,
    typer.Option(
        "--preprocess",
        metavar="imagenet|FILE.json",
        help="Preprocessing of pictures.",
        show_default="that in the artifact, or of the checkpoint's training, or imagenet",
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        help="Names of the classes in order, which the artifact contains: one per line, or JSON.",
        show_default="class numbers",
        rich_help_panel=PANEL,
    ),
]


def packaged(model: Model, preprocess: str | None, labels: Path | None = None) -> Model:
    """The model with the preprocessing and the labels that its artifacts shall contain."""
    from slide_deploy.loading.packaging import with_labels, with_preprocessing

    if preprocess is not None:
        model = with_preprocessing(model, preprocess)
    return model if labels is None else with_labels(model, labels)
