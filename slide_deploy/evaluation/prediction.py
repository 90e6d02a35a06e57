"""The classes that an artifact finds in pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from slide_deploy.errors import UsageError
from slide_deploy.evaluation.ranking import CHUNK
from slide_deploy.packaging.images import PICTURES, read_image
from slide_deploy.packaging.preprocessing import Preprocessing
from slide_deploy.types import Fidelity, TensorSpec, silent

__all__ = [
    "Guess",
    "Prediction",
    "Predictions",
    "Run",
    "picture_files",
    "predicted",
    "read_pictures",
]

SCHEMA_VERSION: Final = 1

Run = Callable[[Mapping[str, Mapping[str, np.ndarray]]], Mapping[str, Mapping[str, np.ndarray]]]


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
    progress: Callable[[int], None] = lambda done: silent(""),
) -> dict[int, np.ndarray]:
    """The probabilities (classes,) in float64 of each image, by its place.

    `run` maps inputs to outputs by any name; it gets batches of the artifact's size, whose last one
    is filled up. Raises UsageError for an output that is not scores of classes.
    """
    places = list(images)
    size = spec.shape[0] if isinstance(spec.shape[0], int) else 1
    found: dict[int, np.ndarray] = {}
    for start in range(0, len(places), CHUNK):
        chunk = places[start : start + CHUNK]
        groups = [chunk[n : n + size] for n in range(0, len(chunk), size)]
        feeds = {
            str(group[0]): {spec.name: np.stack([images[n] for n in _filled(group, size)])}
            for group in groups
        }
        outputs = run(feeds)
        for group in groups:
            scores = outputs[str(group[0])][output.name]
            if scores.ndim != 2:
                raise UsageError(
                    f"output {output.name} is of shape {scores.shape}, not scores of classes",
                    "predict with a classifier",
                )
            found |= dict(zip(group, _probabilities(scores), strict=False))
        progress(len(found))
    return found


def _filled(group: list[int], size: int) -> list[int]:
    return group + group[:1] * (size - len(group))


def _probabilities(scores: np.ndarray) -> np.ndarray:
    wide = scores.astype(np.float64)
    exponentials = np.exp(wide - wide.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))
