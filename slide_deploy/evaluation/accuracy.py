"""The accuracy of one artifact on labelled images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from slide_deploy import registry
from slide_deploy.errors import CheckpointError, UsageError
from slide_deploy.evaluation.dataset import Dataset
from slide_deploy.evaluation.ranking import best_classes
from slide_deploy.packaging.classifier import Conclusion
from slide_deploy.packaging.contents import conclusion_in
from slide_deploy.types import Fidelity, silent
from slide_deploy.utils.files import size_of
from slide_deploy.verification.runner import RunResult, read_artifact

__all__ = ["Accuracy", "Confusion", "Evaluation", "accuracy_of", "accuracy_on", "input_of"]

SCHEMA_VERSION: Final = 1
WORST = 5


@dataclass(frozen=True)
class Confusion:
    """`count` images of the class `label` that were taken for `answer`."""

    label: str
    answer: str
    count: int


@dataclass(frozen=True)
class Accuracy:
    """One artifact, or the checkpoint. `top1`, `top5` and `agreement`, with the best classes of the
    checkpoint, are in percent of the images; `latency_ms` is for one batch of `batch` images."""

    name: str
    target: str
    runtime: str
    precision: str
    fidelity: Fidelity | None
    size_bytes: int
    batch: int
    top1: float
    top5: float
    confusions: tuple[Confusion, ...]
    agreement: float | None = None
    latency_ms: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """All artifacts on one set of images; `reference` is the checkpoint, where one was given."""

    data: str
    images: int
    classes: tuple[str, ...]
    artifacts: tuple[Accuracy, ...]
    reference: Accuracy | None = None
    problems: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION


def input_of(artifact: Path) -> RunResult:
    """What an artifact says of itself; CheckpointError or UsageError if it is not one that can
    classify images."""
    if not artifact.exists():
        raise CheckpointError(f"{artifact} does not exist", "check the path")
    runtime = registry.recognise(artifact)
    registry.require(f"reading {runtime.target}", runtime.packages, runtime.extra)
    about = read_artifact(runtime.target, artifact, {})
    kept = conclusion_in(about.metadata) is Conclusion.BOTH
    if len(about.inputs) != 1 or len(about.output_specs) != 1 + kept:
        raise UsageError(
            f"{artifact.name} has {len(about.inputs)} inputs and {len(about.output_specs)} outputs",
            "evaluate a model of one image with one output, the scores of classes",
        )
    return about


def accuracy_on(
    path: Path,
    data: Dataset,
    reference: np.ndarray | None = None,
    progress: Callable[[str], None] = silent,
) -> Accuracy:
    """Classify the images with an artifact, in its own runtime.

    `reference` are the best classes of the checkpoint, (N, 5). Raises the errors of `input_of`,
    and ArtifactError where the artifact cannot be run.
    """
    about, target = input_of(path), registry.recognise(path).target
    batch = about.inputs[0].shape[0]
    return accuracy_of(
        best_classes(target, path, about, data, progress),
        data,
        reference,
        name=path.name,
        target=target,
        runtime=about.runtime,
        precision=about.precision,
        fidelity=about.fidelity,
        size_bytes=size_of(path),
        batch=batch if isinstance(batch, int) else 1,
    )


def accuracy_of(
    best: np.ndarray, data: Dataset, reference: np.ndarray | None = None, **about: object
) -> Accuracy:
    """The accuracy of best classes (N, 5); `about` are the other fields."""
    right = best == data.labels[:, None]
    agreed = None if reference is None else best[:, 0] == reference[:, 0]
    return Accuracy(
        top1=_percent(right[:, 0]),
        top5=_percent(right.any(axis=1)),
        confusions=tuple(_confusions(best[:, 0], data)),
        agreement=None if agreed is None else _percent(agreed),
        **about,  # type: ignore[arg-type]
    )


def _percent(true: np.ndarray) -> float:
    return 100 * float(true.mean())


def _confusions(answers: np.ndarray, data: Dataset) -> list[Confusion]:
    wrong = np.flatnonzero(answers != data.labels)
    pairs = Counter((int(data.labels[n]), int(answers[n])) for n in wrong)

    def name(number: int) -> str:
        return data.classes[number] if number < len(data.classes) else str(number)

    return [Confusion(name(a), name(b), count) for (a, b), count in pairs.most_common(WORST)]
