"""Prepares a model for the exporter of each target: fuses, lowers and captures it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from slide_deploy import __version__, registry
from slide_deploy.artifacts.manifest import Recipe, SourceRecord
from slide_deploy.artifacts.tuning_cache import load_tuning
from slide_deploy.capture import Capture, Classifier, Normalised
from slide_deploy.fusion.smoothing import smoothed
from slide_deploy.loading.dynamic_size import DynamicSize, dynamic_size_of
from slide_deploy.loading.loader import Model
from slide_deploy.lowering.selection import check_name, lower_for
from slide_deploy.models.families import simplified
from slide_deploy.packaging.classifier import Conclusion, concluded
from slide_deploy.packaging.pictures import pixels_of
from slide_deploy.packaging.preprocessing import prepare as as_inputs
from slide_deploy.quantization.calibration import CalibrationSet
from slide_deploy.quantization.program import SMOOTH
from slide_deploy.types import LayerLowering, Options, TensorSpec, with_batch
from slide_deploy.utils.records import to_text

__all__ = [
    "Prepare",
    "PreparedModel",
    "SizeOf",
    "contents_of",
    "preparer",
    "recipe_of",
    "size_of_model",
    "source_of",
]

SizeOf = Callable[[], DynamicSize]


@dataclass(frozen=True)
class PreparedModel:
    """A model prepared for one target, and the lowering of each of its attentions."""

    capture: Capture
    lowering: tuple[LayerLowering, ...]


class Prepare(Protocol):
    """Prepares a model for a target, with SmoothQuant of a strength."""

    def __call__(self, target: str, smooth: float = 0.0) -> PreparedModel: ...


def size_of_model(model: Model) -> SizeOf:
    """A function that determines the free sizes, running the model on its first call only."""
    return cache(partial(dynamic_size_of, model))


def preparer(
    model: Model,
    options: Options,
    size_of: SizeOf | None = None,
    calibration: CalibrationSet | None = None,
) -> Prepare:
    """A function from a target's name, and the strength of SmoothQuant on the calibration set, to
    the model prepared for it.

    The model is fused once, and captured once for all targets that get the same lowerings.
    Raises UnknownName or ImpossibleLowering if `options.lowering` cannot be used, UsageError if
    a size cannot be free.
    """
    check_name(options.lowering)
    batch = options.dynamic_axes.batch
    free = (size_of or size_of_model(model))() if options.dynamic_size else None
    taken = free.inputs if free else model.artifact_inputs
    inputs = tuple(with_batch(spec, batch) for spec in taken)
    made = concluded(model.conclusion, free.outputs) if free else model.artifact_outputs
    outputs = tuple(with_batch(spec, batch) for spec in made)
    fused = simplified(model.merged)
    metadata = _metadata(model, inputs, options)
    captures: dict[tuple[object, ...], Capture] = {}

    @cache
    def smoothed_by(smooth: float) -> nn.Module:
        assert calibration is not None  # options_by_target refuses SmoothQuant without one
        return smoothed(fused, _samples(model, calibration), smooth)

    def prepare(target: str, smooth: float = 0.0) -> PreparedModel:
        tuned = load_tuning(fused, model.inputs, target, options)
        module, layers = lower_for(
            smoothed_by(smooth) if smooth else fused,
            *(model.inputs, options.lowering, target, tuned),
            precision=options.precision,
            any_size=free is not None,
            recorded=options.lowered.get(target, ()),
        )
        alike = (smooth, *(layer.form for layer in layers))
        if alike not in captures:
            sizes = free.steps if free else {}
            contents = (_classes(model), tuple(model.block_names(model.module)))
            told = {**metadata, **({SMOOTH: f"{smooth:g}"} if smooth else {})}
            capture = Capture(module, inputs, outputs, told, sizes, *contents)
            captures[alike] = replace(capture, module=_finished(model, capture))
        return PreparedModel(captures[alike], layers)

    return prepare


def _samples(model: Model, calibration: CalibrationSet) -> list[list[Tensor]]:
    """The calibration set as inputs of the model, one sample each."""
    runs = (as_inputs(model.preprocessing, run) for run in calibration.runs(1))
    return [
        [torch.from_numpy(run[s.name]).to(getattr(torch, s.dtype)) for s in model.inputs]
        for run in runs
    ]


def _classes(model: Model) -> tuple[str, ...]:
    return () if model.conclusion is Conclusion.SCORES else model.labels or ()


def _finished(model: Model, capture: Capture) -> nn.Module:
    """The module that artifacts compute, the preprocessing of pictures and the softmax included."""
    way, batch = model.contained_preprocessing, capture.inputs[0].shape[0]
    inputs = capture.inputs if way is None else tuple(with_batch(s, batch) for s in model.inputs)
    outputs = capture.outputs[-len(model.outputs) :]
    module = model.finish(replace(capture, inputs=inputs, outputs=outputs))
    if model.conclusion is not Conclusion.SCORES:
        module = Classifier(module, keeps_scores=model.conclusion is Conclusion.BOTH).eval()
    return module if way is None else Normalised(module, pixels_of(way)).eval()


def source_of(model: Model) -> SourceRecord:
    """The model's source, for manifests and reports."""
    return SourceRecord(**dataclasses.asdict(model.source))


def recipe_of(model: Model, target: str, options: Options) -> Recipe | None:
    """What to record to make the artifact again; None for a model that was in memory."""
    if model.loading is None:
        return None
    own = {option.name for option in registry.exporter(target).options}
    given = {name: str(value) for name, value in options.of_targets.items() if name in own}
    return Recipe(
        loading=model.loading,
        batch=options.batch,
        dynamic=options.dynamic,
        dynamic_size=options.dynamic_size,
        lowering=options.lowering,
        min_snr=options.min_snr,
        options=given,
        smooth=options.smooth,
        max_drop=options.max_drop,
        data="" if options.data is None else str(options.data),
    )


def _metadata(model: Model, inputs: tuple[TensorSpec, ...], options: Options) -> dict[str, str]:
    described = ", ".join(
        f"{spec.name}: {'x'.join(map(str, spec.shape))} {spec.dtype}" for spec in inputs
    )
    taken = "pixels in RGB" if inputs[0].is_picture else "normalised as in training"
    return {
        "model": model.name,
        "family": model.family,
        "description": f"{model.name} ({model.family}), exported by slide-deploy {__version__}",
        "source": model.source.path_name,
        "source_sha256": model.source.sha256,
        "weights": model.source.weights,
        "input": f"{described}, {taken}",
        "precision": options.precision,
        "slide_deploy": __version__,
        **{
            name: to_text(value)
            for name, value in contents_of(model).items()
            if value and value != Conclusion.SCORES
        },
    }


def contents_of(model: Model) -> dict[str, Any]:
    """What artifacts contain beside the model, as fields of their record."""
    return {
        "preprocessing": model.contained_preprocessing,
        "labels": model.labels or (),
        "conclusion": model.conclusion,
    }
