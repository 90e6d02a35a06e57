"""What the artifacts of a model are compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from threading import Lock

import numpy as np
from torch import nn

from slide_deploy.artifacts.prepare import SizeOf, size_of_model, source_of
from slide_deploy.errors import UsageError
from slide_deploy.loading.loader import Model
from slide_deploy.loading.probes import drawn_probes, is_judged, recorded_probes
from slide_deploy.packaging.classifier import conclude, concluded, logarithms
from slide_deploy.packaging.images import read_images
from slide_deploy.packaging.mistakes import mistakes
from slide_deploy.packaging.preprocessing import prepare
from slide_deploy.parity.expectation import Expectation
from slide_deploy.parity.fresh_probes import nan_probe
from slide_deploy.parity.logarithms import with_names
from slide_deploy.parity.probes import Probe
from slide_deploy.quantization.calibration import CalibrationSet, load_calibration
from slide_deploy.quantization.catalog import scheme_named
from slide_deploy.reference.blocks import block_references
from slide_deploy.reference.equals import equal_modules
from slide_deploy.reference.expectations import expectations
from slide_deploy.reference.noise import without_luck
from slide_deploy.reference.overflow import blocks_in_float32, finite_lowerings
from slide_deploy.reference.run import run_module
from slide_deploy.reference.samples import sample_expectations
from slide_deploy.types import DynamicAxes, TensorSpec, silent, with_batch
from slide_deploy.verification.judge import Progress, Reference

__all__ = ["Equals", "Images", "calibration_set", "reference_of"]

Equals = Callable[[DynamicAxes, str], list[nn.Module]]
Images = Path | str | Sequence[np.ndarray]


def calibration_set(model: Model, source: Path | str | None) -> CalibrationSet | None:
    """The calibration set at `source`, None without one; raises as `load_calibration` does."""
    return (
        None
        if source is None
        else load_calibration(source, model.artifact_inputs, model.preprocessing)
    )


def reference_of(
    model: Model,
    progress: Progress = silent,
    images: Images = (),
    calibration: CalibrationSet | None = None,
    *,
    size_of: SizeOf | None = None,
    seed: int | None = None,
    equals: Equals | None = None,
) -> Reference:
    """The reference that artifacts of a model are compared with.

    The model runs once for each combination of dynamic axes and precision, on first use. Fresh
    probes are drawn from `seed`; None leaves them out. Artifacts of a quantized precision are
    compared with it on the samples of `calibration`.
    """
    kind = "fused" if model.fused else "unfused"
    size_of = size_of or size_of_model(model)

    running = partial(
        _running, model, progress, Lock(), equals or cache(partial(equal_modules, model))
    )
    own = _own_images(model, images)
    on_probes = running(lambda axes: recorded_probes(model, axes, own, size_of))
    draw = running(lambda axes: drawn_probes(model, axes, seed or 0, size_of))
    on_samples = cache(partial(_on_samples, model, progress, calibration))
    held_out = cache(partial(_held_out, model, progress, own))

    def expect(axes: DynamicAxes, precision: str) -> tuple[Expectation, ...]:
        if scheme_named(precision).quantized:
            return on_samples(precision, axes.batch)
        return on_probes(axes, precision)

    def fresh(axes: DynamicAxes, precision: str) -> tuple[Expectation, ...]:
        if seed is None or scheme_named(precision).quantized:
            return ()
        recorded = on_probes(axes, precision)
        return without_luck((*recorded, *draw(axes, precision)))[len(recorded) :]

    return Reference(
        name=model.name,
        source=source_of(model),
        reference=f"{kind} PyTorch model in float64, {model.source.weights} weights",
        specs=partial(_specs, model, size_of),
        expect=expect,
        blocks=lambda inputs, precision: block_references(
            model.module,
            model.block_names(model.module),
            prepare(model.preprocessing, inputs),
            precision,
        ),
        fresh=fresh,
        nan=cache(lambda axes: _with_nan(model, recorded_probes(model, axes, (), size_of)[0])),
        mistakes=partial(_mistaken, model),
        remedy=partial(_remedy, model),
        labels=model.labels or (),
        seed=seed,
        calibration_sha256=calibration.sha256 if calibration else "",
        held_out=lambda axes: held_out(axes.batch),
    )


def _own_images(model: Model, images: Images) -> tuple[np.ndarray, ...]:
    """The user's own images, each as an artifact of the model takes it: (C, H, W), normalised, or
    (H, W, 3) where artifacts take pictures. UsageError if the model takes no image."""
    if not isinstance(images, (str, Path)):
        return tuple(images)
    first, *others = model.artifact_inputs
    if others or len(first.shape) != 4 or not (first.dtype == "float32" or first.is_picture):
        raise UsageError("--images needs a model with one image input", "omit --images")
    return read_images(Path(images), first, model.preprocessing)


def _specs(
    model: Model, size_of: SizeOf, axes: DynamicAxes
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of an artifact with these dynamic axes."""
    free = size_of() if axes.any_size else None
    made = concluded(model.conclusion, free.outputs) if free else model.artifact_outputs
    sides = (free.inputs if free else model.artifact_inputs, made)
    inputs, outputs = (tuple(with_batch(spec, axes.batch) for spec in side) for side in sides)
    return inputs, outputs


def _running(
    model: Model,
    progress: Progress,
    lock: Lock,
    equals: Equals,
    probes: Callable[[DynamicAxes], tuple[Probe, ...]],
) -> Callable[[DynamicAxes, str], tuple[Expectation, ...]]:
    """What the model makes of `probes`: it runs when first asked, one at a time."""

    @cache
    def run(axes: DynamicAxes, precision: str) -> tuple[Expectation, ...]:
        found = expectations(
            model.module,
            model.outputs,
            probes(axes),
            precision=precision,
            equals=equals(axes, precision),
            on_probe=lambda name: progress(f"running the reference: {name}"),
            prepare=partial(prepare, model.preprocessing),
            conclude=partial(conclude, model.conclusion),
        )
        named = with_names(found, logarithms(model.conclusion))
        return tuple(filter(is_judged, named))

    def run_alone(axes: DynamicAxes, precision: str) -> tuple[Expectation, ...]:
        with lock:
            return run(axes, precision)

    return run_alone


def _on_samples(
    model: Model,
    progress: Progress,
    calibration: CalibrationSet | None,
    precision: str,
    batch: int | str,
) -> tuple[Expectation, ...]:
    """What the model makes of the calibration set."""
    if calibration is None:
        raise UsageError(
            f"verifying a {precision} artifact needs its calibration set",
            "pass the same --calibration as for its export",
        )
    return _sampled(model, progress, calibration.runs(batch), "calibration set")


def _held_out(
    model: Model, progress: Progress, images: Sequence[np.ndarray], batch: int | str
) -> tuple[Expectation, ...]:
    """What the model makes of the user's own images."""
    if not images:
        return ()
    arrays = {model.artifact_inputs[0].name: np.stack(images)}
    runs = CalibrationSet(arrays, "", "--images", synthetic=False).runs(batch)
    return _sampled(model, progress, runs, "images of --images")


def _sampled(
    model: Model, progress: Progress, runs: Sequence[Mapping[str, np.ndarray]], name_of_set: str
) -> tuple[Expectation, ...]:
    found = sample_expectations(
        model.module,
        model.outputs,
        runs,
        name_of_set=name_of_set,
        prepare=partial(prepare, model.preprocessing),
        conclude=partial(conclude, model.conclusion),
        on_sample=lambda name: progress(f"running the reference: {name} of the {name_of_set}"),
    )
    return with_names(found, logarithms(model.conclusion))


def _mistaken(
    model: Model, inputs: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, Mapping[str, np.ndarray]]]:
    """What the model, in float32, makes of a picture after each known mistake."""
    way = model.preprocessing
    for name, pixels in inputs.items():
        if way is None or pixels.dtype != np.uint8:
            continue
        for mistake, image in mistakes(way, pixels):
            made = run_module(model.module, model.outputs, {name: image})
            yield mistake, conclude(model.conclusion, made)


def _remedy(model: Model, inputs: Mapping[str, np.ndarray], precision: str) -> str:
    """What keeps a model finite that overflows on these inputs, in words."""
    given = prepare(model.preprocessing, inputs)
    lowered = finite_lowerings(model.merged, model.inputs, given, precision)
    blocks = blocks_in_float32(model.module, model.block_names(model.module), given, precision)
    ways = [f"the lowerings {', '.join(lowered)}"] * bool(lowered)
    ways += [f"{', '.join(blocks)} in float32"] * bool(blocks)
    if not ways:
        return "no lowering and no block in float32 keeps it finite"
    return f"it is finite with {' or with '.join(ways)}"


def _with_nan(model: Model, probe: Probe) -> Expectation | None:
    """What the model, in float32, makes of a probe with a NaN; None where it takes none."""
    if (asked := nan_probe(probe)) is None:
        return None
    try:
        inputs = prepare(model.preprocessing, asked.inputs)
        outputs = conclude(model.conclusion, run_module(model.module, model.outputs, inputs))
    except Exception:  # the user's own forward may refuse it
        return None
    return Expectation(asked.name, asked.why, asked.inputs, outputs, {})
