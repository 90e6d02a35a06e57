"""Options for what artifacts contain beside the model: preprocessing, labels, probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slide_deploy.errors import UsageError

if TYPE_CHECKING:
    from slide_deploy.loading.loader import Model

__all__ = [
    "AS_IT_IS",
    "Classifier",
    "KeepLogits",
    "Labels",
    "Package",
    "PicturePreprocess",
    "Preprocess",
]

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


Classifier = Annotated[
    bool,
    typer.Option(
        "--classifier",
        help="The artifact gives the probabilities of the classes instead of scores; in Core ML "
        "also the name of the best one.",
        rich_help_panel=PANEL,
    ),
]
KeepLogits = Annotated[
    bool,
    typer.Option(
        "--keep-logits",
        help="With --classifier, the scores are a further output.",
        rich_help_panel=PANEL,
    ),
]


@dataclass(frozen=True)
class Package:
    """What artifacts shall contain beside the model, as options of a command.

    Raises UsageError for logits that are kept without probabilities.
    """

    preprocess: str | None = None
    labels: Path | None = None
    classifier: bool = False
    keep_logits: bool = False

    def __post_init__(self) -> None:
        if self.keep_logits and not self.classifier:
            raise UsageError(
                "--keep-logits needs --classifier", "omit it: without --classifier, scores come out"
            )

    def of(self, model: Model) -> Model:
        """The model with these contents."""
        from slide_deploy.loading.packaging import (
            with_classifier,
            with_labels,
            with_preprocessing,
        )

        if self.preprocess is not None:
            model = with_preprocessing(model, self.preprocess)
        if self.labels is not None:
            model = with_labels(model, self.labels)
        return with_classifier(model, keep_logits=self.keep_logits) if self.classifier else model


AS_IT_IS = Package()
