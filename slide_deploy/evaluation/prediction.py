"""The classes that an artifact finds in pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from slide_deploy.errors import UsageError
from slide_deploy.evaluation.ranking import CHUNK, Run, scores_by
from slide_deploy.packaging.classifier import Conclusion
from slide_deploy.packaging.contents import labels_in, preprocessing_in
from slide_deploy.packaging.images import PICTURES, read_image
from slide_deploy.packaging.labels import read_labels
from slide_deploy.packaging.preprocessing import Preprocessing, named_preprocessing
from slide_deploy.types import Fidelity, TensorSpec
from slide_deploy.verification.runner import RunResult

if TYPE_CHECKING:
    from slide_deploy.loading.loader import Model

__all__ = [
    "Guess",
    "Prediction",
    "Predictions",
    "known_of",
    "picture_files",
    "predicted",
    "read_pictures",
]

SCHEMA_VERSION: Final = 1


@dataclass(frozen=True)
class Guess:
    """A class with its probability, 0 to 1; `label` is its number where it has no name."""

    number: int
    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The best classes of one picture, or why it could not be read. `agrees` tells whether the
    checkpoint finds the same best class."""

    image: str
    guesses: tuple[Guess, ...] = ()
    problem: str = ""
    agrees: bool | None = None


@dataclass(frozen=True)
class Predictions:
    """What one artifact finds in pictures; `reference` is the checkpoint, where one was given."""

    artifact: str
    target: str
    runtime: str
    precision: str
    fidelity: Fidelity
    predictions: tuple[Prediction, ...]
    reference: str = ""
    notes: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION


def known_of(
    about: RunResult,
    preprocessing: Preprocessing | Path | str | None,
    labels: Sequence[str] | Path | None,
    model: Model | None,
) -> tuple[Preprocessing | None, Sequence[str] | None]:
    """The preprocessing of pictures and the names of the classes: those that were given, else those
    in the artifact, else those of the checkpoint. Raises as `named_preprocessing` and `read_labels`
    do."""
    spec = about.inputs[0]
    if isinstance(preprocessing, (Path, str)):
        height, width = spec.shape[1:3] if spec.is_picture else spec.shape[-2:]
        preprocessing = named_preprocessing(preprocessing, (int(height), int(width)))
    if isinstance(labels, Path):
        labels = read_labels(labels, int(about.output_specs[0].shape[-1]))
    return (
        preprocessing
        or preprocessing_in(about.metadata)
        or (model.preprocessing if model else None),
        labels or labels_in(about.metadata) or (model.labels if model else None),
    )


def picture_files(given: Sequence[Path]) -> tuple[Path, ...]:
    """These files, and the pictures in these folders; UsageError for a path with none."""
    found: list[Path] = []
    for path in given:
        if not path.exists():
            raise UsageError(f"{path} does not exist", "give pictures, or folders of pictures")
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES)
        if not inside:
            raise UsageError(f"{path} has no pictures", f"put {', '.join(PICTURES)} files there")
        found += inside
    return tuple(found)


def read_pictures(
    files: Sequence[Path], spec: TensorSpec, preprocessing: Preprocessing | None
) -> tuple[dict[int, np.ndarray], dict[int, str]]:
    """The inputs for `spec` by the place of their file, and why the others cannot be read."""
    images: dict[int, np.ndarray] = {}
    problems: dict[int, str] = {}
    for place, path in enumerate(files):
        try:
            images[place] = read_image(path, spec, preprocessing)
        except UsageError as error:
            problems[place] = error.message.removeprefix(f"{path} ").removeprefix(f"{path}: ")
    return images, problems


def predicted(
    run: Run,
    spec: TensorSpec,
    output: TensorSpec,
    images: Mapping[int, np.ndarray],
    progress: Callable[[int], None] = lambda done: None,
    *,
    conclusion: Conclusion = Conclusion.SCORES,
) -> dict[int, np.ndarray]:
    """The probabilities (classes,) in float64 of each image, by its place; of scores, their
    softmax. `run` and UsageError are as in `scores_by`."""
    places = list(images)
    found: dict[int, np.ndarray] = {}
    for start in range(0, len(places), CHUNK):
        chunk = places[start : start + CHUNK]
        scores = scores_by(run, spec, output, images.__getitem__, chunk)
        given = conclusion is not Conclusion.SCORES
        made = scores.astype(np.float64) if given else _probabilities(scores)
        found |= dict(zip(chunk, made, strict=True))
        progress(len(found))
    return found


def _probabilities(scores: np.ndarray) -> np.ndarray:
    wide = scores.astype(np.float64)
    exponentials = np.exp(wide - wide.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))
