"""Predicts the classes of pictures with an artifact, in its own runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slide_deploy import registry
from slide_deploy.errors import UsageError
from slide_deploy.evaluation.accuracy import input_of
from slide_deploy.evaluation.prediction import (
    Guess,
    Prediction,
    Predictions,
    known_of,
    picture_files,
    predicted,
    read_pictures,
)
from slide_deploy.evaluation.ranking import Run
from slide_deploy.packaging.contents import conclusion_in
from slide_deploy.packaging.preprocessing import Preprocessing, prepare
from slide_deploy.types import silent
from slide_deploy.verification.runner import read_artifact

if TYPE_CHECKING:
    from slide_deploy.loading.loader import Model

__all__ = ["predict"]

ASSUMED = (
    "assumed: pictures are prepared as for ImageNet, since neither artifact nor checkpoint tells"
)


def predict(
    artifact: Path | str,
    images: Sequence[Path | str],
    *,
    model: Model | None = None,
    preprocessing: Preprocessing | Path | str | None = None,
    labels: Sequence[str] | Path | None = None,
    top: int = 5,
    progress: Callable[[str], None] = silent,
) -> Predictions:
    """The `top` best classes of each picture, with probabilities.

    `images` are files or folders of pictures of any size and mode. They are resized and cropped as
    `preprocessing` says, which may also be a JSON file or a preset; by default that in the
    artifact, or that of the checkpoint's training. `labels` are names or a file of them, by default
    those in the artifact. With `model`, its best class is compared. A
    picture that cannot be read has a `problem`. Raises UsageError for a path without pictures and
    for an artifact that is no classifier, ArtifactError if it cannot be run.
    """
    path = Path(artifact)
    about, files = input_of(path), picture_files([Path(image) for image in images])
    target, spec, output = registry.recognise(path).target, about.inputs[0], about.output_specs[0]
    way, names = known_of(about, preprocessing, labels, model)
    pictures, problems = read_pictures(files, spec, way)

    def on_artifact(
        feeds: Mapping[str, Mapping[str, np.ndarray]],
    ) -> Mapping[str, Mapping[str, np.ndarray]]:
        return read_artifact(target, path, feeds).outputs

    def shown(done: int) -> None:
        progress(f"predicting with {path.name}: {done} of {len(files)} pictures")

    conclusion = conclusion_in(about.metadata)
    found = predicted(on_artifact, spec, output, pictures, shown, conclusion=conclusion)
    theirs = predicted(_on(model, way), spec, model.outputs[0], pictures) if model else {}
    if names and found and len(names) != len(next(iter(found.values()))):
        raise UsageError(
            f"{len(names)} labels were given for {len(next(iter(found.values())))} classes",
            "give one label for each class",
        )
    return Predictions(
        artifact=path.name,
        target=target,
        runtime=about.runtime,
        precision=about.precision,
        fidelity=about.fidelity,
        predictions=tuple(
            Prediction(
                image=str(file),
                guesses=_guesses(found[n], names, top) if n in found else (),
                problem=problems.get(n, ""),
                agrees=bool(found[n].argmax() == theirs[n].argmax()) if n in theirs else None,
            )
            for n, file in enumerate(files)
        ),
        reference=model.source.path_name if model else "",
        notes=() if way else (ASSUMED,),
    )


def _on(model: Model, way: Preprocessing | None) -> Run:
    """The unfused model in float32, on inputs of the artifact."""
    from slide_deploy.reference.run import run_module

    def run(
        feeds: Mapping[str, Mapping[str, np.ndarray]],
    ) -> Mapping[str, Mapping[str, np.ndarray]]:
        return {
            name: run_module(model.module, model.outputs, prepare(way, own))
            for name, own in feeds.items()
        }

    return run


def _guesses(probabilities: np.ndarray, names: Sequence[str] | None, top: int) -> tuple[Guess, ...]:
    best = np.argsort(-probabilities, kind="stable")[:top]
    return tuple(
        Guess(int(n), names[n] if names else str(n), float(probabilities[n])) for n in best
    )
