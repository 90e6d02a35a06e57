"""Evaluates artifacts side by side, and beside their checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slide_deploy.bench.latency import bench
from slide_deploy.errors import UsageError
from slide_deploy.evaluation.accuracy import Accuracy, Evaluation, accuracy_of, accuracy_on
from slide_deploy.evaluation.dataset import Dataset
from slide_deploy.evaluation.ranking import CHUNK, rank_by
from slide_deploy.packaging.preprocessing import prepare
from slide_deploy.types import Fidelity, silent

if TYPE_CHECKING:
    from slide_deploy.loading.loader import Model

__all__ = ["accuracy_of_model", "best_of_model", "evaluate"]

Arrays = Mapping[str, np.ndarray]


def evaluate(
    artifacts: Path | str | Sequence[Path | str],
    data: Dataset,
    *,
    model: Model | None = None,
    min_top1: float | None = None,
    max_drop: float | None = None,
    threads: int = 1,
    progress: Callable[[str], None] = silent,
) -> Evaluation:
    """The accuracy and latency of artifacts on labelled images, each in its own runtime.

    With `model`, its checkpoint is evaluated too, and each artifact's agreement with it. Artifacts
    of a top-1 accuracy below `min_top1` percent, or more than `max_drop` points below the model's,
    are named in `problems`. Latency is measured with `threads` threads, where the vendor's runtime
    runs here. Raises UsageError for artifacts that are not classifiers.
    """
    given = [artifacts] if isinstance(artifacts, (str, Path)) else artifacts
    paths = [Path(path) for path in given]
    reference = None if model is None else best_of_model(model, data, progress)
    found = [accuracy_on(path, data, reference, progress) for path in paths]
    timed = [p for p, own in zip(paths, found, strict=True) if own.fidelity is Fidelity.NATIVE]
    timings = bench(timed, threads=threads, rounds=5, progress=progress).timings if timed else ()
    latency = {path: timing.median_ms for path, timing in zip(timed, timings, strict=True)}
    found = [
        replace(own, latency_ms=latency.get(path)) for path, own in zip(paths, found, strict=True)
    ]
    checkpoint = None
    if model is not None and reference is not None:
        checkpoint = accuracy_of_model(model, reference, data)
    return Evaluation(
        data=data.name,
        images=data.count,
        classes=data.classes,
        artifacts=tuple(found),
        reference=checkpoint,
        problems=tuple(_problems(found, checkpoint, min_top1, max_drop)),
    )


def best_of_model(model: Model, data: Dataset, progress: Callable[[str], None]) -> np.ndarray:
    """The best classes of each image by the unfused model in float32, (N, 5); UsageError for a
    model that is no classifier of images."""
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UsageError(
            f"{model.name} has {len(model.inputs)} inputs and {len(model.outputs)} outputs",
            "evaluate a model of one image with one output, the scores of classes",
        )

    from slide_deploy.reference.run import run_module  # artifacts are evaluated without torch too

    def run(feeds: Mapping[str, Arrays]) -> Mapping[str, Arrays]:
        return {
            name: run_module(model.module, model.outputs, prepare(model.preprocessing, own))
            for name, own in feeds.items()
        }

    found = []
    for start in range(0, data.count, CHUNK):
        images = range(start, min(start + CHUNK, data.count))
        found.append(rank_by(run, model.artifact_inputs[0], model.outputs[0], data, images))
        progress(f"evaluating the checkpoint: {images.stop} of {data.count} images")
    return np.concatenate(found)


def accuracy_of_model(model: Model, best: np.ndarray, data: Dataset) -> Accuracy:
    """The accuracy of the checkpoint, from its best classes of each image, (N, 5)."""
    return accuracy_of(
        best,
        data,
        name=model.source.path_name,
        target="checkpoint",
        runtime="PyTorch",
        precision="float32",
        fidelity=None,
        size_bytes=0,
        batch=1,
    )


def _problems(
    found: Sequence[Accuracy],
    reference: Accuracy | None,
    min_top1: float | None,
    max_drop: float | None,
) -> Iterator[str]:
    for own in found:
        if min_top1 is not None and own.top1 < min_top1:
            yield f"{own.name}: top-1 {own.top1:.2f} %, less than {min_top1:g} %"
        if max_drop is not None and reference and reference.top1 - own.top1 > max_drop:
            drop = reference.top1 - own.top1
            yield (
                f"{own.name}: top-1 {own.top1:.2f} %, {drop:.2f} points below the checkpoint "
                f"(limit: {max_drop:g})"
            )
