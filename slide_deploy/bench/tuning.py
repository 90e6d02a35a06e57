"""Measures the lowerings of each attention, and saves the fastest in the tuning cache.

Where a compiler estimates the cycles of a device that is not here, these are compared instead."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from slide_deploy import registry
from slide_deploy.artifacts.options import options_by_target
from slide_deploy.artifacts.tuning_cache import save_tuning
from slide_deploy.artifacts.write import write_artifact
from slide_deploy.bench.estimating import estimate_of
from slide_deploy.bench.latency import bench
from slide_deploy.capture import Capture
from slide_deploy.errors import ConversionError, SlideDeployError, UsageError
from slide_deploy.loading.loader import Model
from slide_deploy.lowering.catalog import lowerings
from slide_deploy.lowering.replacement import attentions
from slide_deploy.lowering.selection import shape_key
from slide_deploy.models.slide_attention import FusedSlideAttention
from slide_deploy.parity.comparison import compare
from slide_deploy.parity.expectation import Expectation
from slide_deploy.parity.probes import make_probes
from slide_deploy.protocols import Estimate
from slide_deploy.quantization.calibration import SYNTHETIC
from slide_deploy.quantization.catalog import scheme_named
from slide_deploy.reference.expectations import expectations
from slide_deploy.types import Fidelity, Options, TensorSpec, silent
from slide_deploy.verification.judge import Progress
from slide_deploy.verification.runner import read_artifact

__all__ = ["Measured", "Tuning", "tune"]


@dataclass(frozen=True)
class Measured:
    """One lowering of one kind of attention: milliseconds per call or a compiler's estimate, or the
    problem. `ratio` is to the fastest of those measured with it."""

    layers: tuple[str, ...]
    resolution: tuple[int, int]
    form: str
    median_ms: float | None
    ratio: float | None
    problem: str = ""
    estimate: Estimate | None = None

    @property
    def rank(self) -> tuple[int, float]:
        """Lower is better: an operator that stays on the CPU interrupts the device."""
        on_cpu = len(self.estimate.on_cpu) if self.estimate else 0
        return on_cpu, math.inf if self.ratio is None else self.ratio


@dataclass(frozen=True)
class Tuning:
    """The measurements for one target, and the fastest lowering of each kind of attention."""

    target: str
    measured: tuple[Measured, ...]
    forms: Mapping[str, str]
    path: Path


def tune(
    model: Model, target: str, options: Options, *, threads: int = 2, progress: Progress = silent
) -> Tuning:
    """Measure every lowering of each attention in the target's own runtime, alternately, or compile
    it for the device of the options where the target's compiler estimates cycles.

    A lowering that fails verification is not used. Raises UsageError for a target that is only
    interpreted here or has a simulator without a clock, MissingLibrary if its runtime is not
    installed.
    """
    exporter, runtime = registry.exporter(target), registry.runtime(target)
    packages = (*exporter.packages, *runtime.packages)
    registry.require(f"tuning {exporter.title}", packages, exporter.extra)
    if runtime.fidelity() is Fidelity.INTERPRETED:
        raise UsageError(
            f"{exporter.title} has no runtime here to tune for", "tune on a machine that has it"
        )
    if runtime.fidelity() is Fidelity.SIMULATED and not runtime.estimates:
        raise UsageError(
            f"the simulator of {exporter.title} has no clock, and its compiler estimates no cycles",
            "choose a lowering with export --lowering",
        )
    if runtime.estimates:
        options = replace(options, calibration=SYNTHETIC)
    options = options_by_target((exporter.target,), options)[exporter.target]
    module = model.merged
    measured: list[Measured] = []
    fastest: dict[str, str] = {}
    for layers, attention, resolution in _kinds(module, model.inputs):
        progress(f"timing lowerings: {layers[0]} at {resolution[0]}x{resolution[1]}")
        measure = _estimated if runtime.estimates else _timed
        found = measure(attention, layers, resolution, target, options, threads)
        measured += found
        timed = [m for m in found if m.ratio is not None]
        if not timed:
            raise ConversionError(
                f"no lowering of {layers[0]} passes on {exporter.title}: {found[0].problem}",
                f"run slide-deploy export -t {target} for details",
            )
        best = min(timed, key=lambda m: m.rank)
        fastest[shape_key(attention.config, resolution)] = best.form
    path = save_tuning(module, model.inputs, target, options, fastest)
    return Tuning(target, tuple(measured), fastest, path)


def _kinds(
    module: nn.Module, inputs: tuple[TensorSpec, ...]
) -> list[tuple[tuple[str, ...], FusedSlideAttention, tuple[int, int]]]:
    """Groups of attentions of equal cost: (their names, one of them, its map)."""
    kinds: dict[str, tuple[list[str], FusedSlideAttention, tuple[int, int]]] = {}
    for name, (attention, resolution) in attentions(module, inputs).items():
        key = shape_key(attention.config, resolution)
        kinds.setdefault(key, ([], attention, resolution))[0].append(name)
    return [(tuple(names), attention, size) for names, attention, size in kinds.values()]


def _estimated(
    attention: FusedSlideAttention,
    layers: tuple[str, ...],
    resolution: tuple[int, int],
    target: str,
    options: Options,
    _threads: int,
) -> list[Measured]:
    capture = _capture(attention, resolution, options)
    found: dict[str, Estimate] = {}
    problems: dict[str, str] = {}
    for lowering in lowerings():
        try:
            built = replace(capture, module=lowering.build(attention).eval())
            with tempfile.TemporaryDirectory() as folder:
                found[lowering.name] = estimate_of(
                    built, target, lowering.name, Path(folder), options
                )
        except SlideDeployError as error:
            problems[lowering.name] = error.message
    least = min((own.cycles for own in found.values()), default=0)
    measured = [
        Measured(layers, resolution, name, None, own.cycles / least, estimate=own)
        for name, own in found.items()
    ]
    return [*measured, *_failed(layers, resolution, problems)]


def _timed(
    attention: FusedSlideAttention,
    layers: tuple[str, ...],
    resolution: tuple[int, int],
    target: str,
    options: Options,
    threads: int,
) -> list[Measured]:
    capture = _capture(attention, resolution, options)
    expected = expectations(attention, capture.outputs, make_probes(capture.inputs)[:1])
    problems: dict[str, str] = {}
    good: list[tuple[str, Path]] = []
    with tempfile.TemporaryDirectory() as folder:
        for lowering in lowerings():
            try:
                built = replace(capture, module=lowering.build(attention).eval())
                record = write_artifact(target, lowering.name, built, Path(folder), options)
            except SlideDeployError as error:
                problems[lowering.name] = error.message
                continue
            path = Path(folder, record.path)
            if problem := _parity_problem(target, path, expected, options):
                problems[lowering.name] = problem
            else:
                good.append((lowering.name, path))
        timings = bench(
            [path for _, path in good], threads=threads, rounds=8, calls=10, progress=silent
        ).timings
    measured = [
        Measured(layers, resolution, form, timing.median_ms, timing.ratio)
        for (form, _), timing in zip(good, timings, strict=True)
    ]
    return [*measured, *_failed(layers, resolution, problems)]


def _capture(
    attention: FusedSlideAttention, resolution: tuple[int, int], options: Options
) -> Capture:
    tokens = TensorSpec("tokens", (options.batch, *resolution, attention.config.dim))
    return Capture(attention, (tokens,), (replace(tokens, name="attended"),), {})


def _failed(
    layers: tuple[str, ...], resolution: tuple[int, int], problems: Mapping[str, str]
) -> list[Measured]:
    return [Measured(layers, resolution, name, None, None, p) for name, p in problems.items()]


def _parity_problem(
    target: str, path: Path, expected: tuple[Expectation, ...], options: Options
) -> str:
    feeds = {e.probe: dict(e.inputs) for e in expected}
    reading = read_artifact(target, path, feeds)
    gates = scheme_named(options.precision).gates
    found = [
        comparison for e in expected for comparison in compare(e, reading.outputs[e.probe], gates)
    ]
    return next((c.problem for c in found if c.problem), "")
