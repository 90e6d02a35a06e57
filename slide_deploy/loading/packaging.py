"""Models with the preprocessing and the labels that their artifacts contain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from slide_deploy.errors import UsageError
from slide_deploy.loading.loader import Model
from slide_deploy.packaging.classifier import Conclusion
from slide_deploy.packaging.contents import conclusion_in, labels_in, preprocessing_in
from slide_deploy.packaging.labels import read_labels
from slide_deploy.packaging.pictures import for_pictures
from slide_deploy.packaging.preprocessing import (
    InputKind,
    Preprocessing,
    named_preprocessing,
)

__all__ = [
    "containing",
    "packaged_as",
    "taking",
    "with_classifier",
    "with_labels",
    "with_preprocessing",
]

AUTO, NONE = "auto", "none"


def with_preprocessing(model: Model, way: Preprocessing | Path | str) -> Model:
    """The model with artifacts that take pictures, uint8 (batch, height, width, 3) in RGB.

    `way` is a preprocessing, a JSON file with one, the preset `imagenet`, or `auto`: that of the
    training configuration in the checkpoint, without one `imagenet`. `none` leaves the model as it
    is. Pictures are resized and cropped outside of the artifact. Raises UsageError if the model
    does not take one image of three channels, UnknownName for another preset.
    """
    if str(way) == NONE:
        return model
    notes: tuple[str, ...] = ()
    if str(way) == AUTO:
        way = model.preprocessing or "imagenet"
        if isinstance(way, str):
            notes = ("assumed: pictures are normalised with the mean and deviation of ImageNet",)
    if not isinstance(way, Preprocessing):
        shape = model.inputs[0].shape
        sides = [side if isinstance(side, int) else 1 for side in (1, 1, *shape)[-2:]]
        way = named_preprocessing(way, (sides[0], sides[1]))
    own = for_pictures(way, model.inputs)
    return replace(model, preprocessing=own, notes=(*model.notes, *notes))


def with_labels(model: Model, path: Path) -> Model:
    """The model with the names of its classes; raises UsageError as `read_labels` does, or if the
    model is no classifier."""
    return replace(model, labels=read_labels(path, _classes(model, "--labels")))


def with_classifier(model: Model, *, keep_logits: bool = False) -> Model:
    """The model with artifacts that give the probabilities of its classes, and with `keep_logits`
    its scores too. Classes without names get their numbers. Raises UsageError if the model is no
    classifier."""
    numbers = tuple(map(str, range(_classes(model, "--classifier"))))
    conclusion = Conclusion.BOTH if keep_logits else Conclusion.PROBABILITIES
    return replace(model, labels=model.labels or numbers, conclusion=conclusion)


def _classes(model: Model, option: str) -> int:
    if len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        raise UsageError(
            f"{model.name} has no output with one score for each class", f"omit {option}"
        )
    return int(model.outputs[0].shape[1])


def packaged_as(model: Model, metadata: Mapping[str, str]) -> Model:
    """The model as the reference of an artifact with this metadata, which tells what it contains
    beside the model; raises ArtifactError if it cannot be read."""
    way, labels = preprocessing_in(metadata), labels_in(metadata) or ()
    return containing(model, way, labels, conclusion_in(metadata))


def containing(
    model: Model, way: Preprocessing | None, labels: tuple[str, ...], conclusion: Conclusion
) -> Model:
    """The model as the reference of artifacts that contain this beside it. Labels that the model
    was given stay, to be compared with those of the artifact."""
    own = taking(model, way)
    return replace(own, labels=model.labels or labels or None, conclusion=conclusion)


def taking(model: Model, way: Preprocessing | None) -> Model:
    """The model as the reference of artifacts that contain this preprocessing, or none."""
    if way is not None:
        return replace(model, preprocessing=for_pictures(way, model.inputs))
    own = model.contained_preprocessing
    return replace(model, preprocessing=replace(own, input=InputKind.TENSOR)) if own else model
