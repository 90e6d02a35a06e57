"""The accuracy of artifacts on labelled images, beside that of their model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from slide_deploy.evaluation.accuracy import accuracy_on
from slide_deploy.evaluation.dataset import Dataset, read_dataset
from slide_deploy.loading.loader import Model
from slide_deploy.pipeline.evaluate import accuracy_of_model, best_of_model
from slide_deploy.types import Options, Verdict
from slide_deploy.verification.judge import Progress
from slide_deploy.verification.record import Check, LabelledAccuracy

__all__ = ["Labelled", "labelled_images", "with_accuracy"]


@dataclass(frozen=True)
class Labelled:
    """Labelled images, and the model's top-1 accuracy on them in percent."""

    data: Dataset
    top1: float

    def top1_of(self, artifact: Path) -> float:
        """The top-1 accuracy of an artifact in percent, in its own runtime."""
        return accuracy_on(artifact, self.data).top1


def labelled_images(model: Model, options: Options, progress: Progress) -> Labelled | None:
    """The images of `options.data`, None without; UsageError as `read_dataset`, and for a model
    that classifies nothing."""
    if options.data is None:
        return None
    spec = model.artifact_inputs[0]
    data = read_dataset(options.data, spec, model.preprocessing, model.labels)
    best = best_of_model(model, data, progress)
    return Labelled(data, accuracy_of_model(model, best, data).top1)


def with_accuracy(
    check: Check, artifact: Path, labelled: Labelled, max_drop: float | None, progress: Progress
) -> Check:
    """The check of an artifact that ran, with its accuracy; it fails where this is more than
    `max_drop` points below the model's."""
    if check.fidelity is None:
        return check
    progress(f"verifying {artifact.name}: classifying {labelled.data.name}")
    data, top1 = labelled.data, labelled.top1_of(artifact)
    accuracy = LabelledAccuracy(data.name, data.count, top1, labelled.top1)
    check, drop = replace(check, accuracy=accuracy), labelled.top1 - top1
    if max_drop is None or drop <= max_drop:
        return check
    problem = (
        f"top-1 on {data.name} is {top1:.2f} %, {drop:.2f} points below the checkpoint's "
        f"(limit: {max_drop:g})"
    )
    return replace(check, verdict=Verdict.FAIL, problems=(*check.problems, problem))
