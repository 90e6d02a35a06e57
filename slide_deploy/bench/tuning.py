"""Measures the lowerings of each attention, and saves the fastest in the tuning cache."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from slide_deploy import registry
from slide_deploy.artifacts.options import options_by_target
from slide_deploy.artifacts.tuning_cache import save_tuning
from slide_deploy.artifacts.write import write_artifact
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
from slide_deploy.quantization.catalog import scheme_named
from slide_deploy.reference.expectations import expectations
from slide_deploy.types import Fidelity, Options, TensorSpec, silent
from slide_deploy.verification.judge import Progress
from slide_deploy.verification.runner import read_artifact

__all__ = ["Measured", "Tuning", "tune"]


@dataclass(frozen=True)
class Measured:
    """One lowering of one kind of attention: milliseconds per call, or the problem."""

    layers: tuple[str, ...]
    resolution: tuple[int, int]
    form: str
    median_ms: float | None
    ratio: float | None
    problem: str = ""


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
    """Measure every lowering of each attention in the target's own runtime, alternately.

    A lowering that fails verification is not used. Raises UsageError for a target that is only
    interpreted here, MissingLibrary if its runtime is not installed.
    """
    exporter, runtime = registry.exporter(target), registry.runtime(target)
    packages = (*exporter.packages, *runtime.packages)
    registry.require(f"tuning {exporter.title}", packages, exporter.extra)
    if runtime.fidelity() is Fidelity.INTERPRETED:
        raise UsageError(
            f"{exporter.title} has no runtime here to tune for", "tune on a machine that has it"
        )
    options = options_by_target((exporter.target,), options)[exporter.target]
    module = model.merged
    measured: list[Measured] = []
    fastest: dict[str, str] = {}
    for layers, attention, resolution in _kinds(module, model.inputs):
        progress(f"timing lowerings: {layers[0]} at {resolution[0]}x{resolution[1]}")
        found = _measure(attention, layers, resolution, target, options, threads)
        measured += found
        timed = [m for m in found if m.median_ms is not None]
        if not timed:
            raise ConversionError(
                f"no lowering of {layers[0]} passes on {exporter.title}: {found[0].problem}",
                f"run slide-deploy export -t {target} for details",
            )
        best = min(timed, key=lambda m: m.ratio or float("inf"))
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


def _measure(
    attention: FusedSlideAttention,
    layers: tuple[str, ...],
    resolution: tuple[int, int],
    target: str,
    options: Options,
    threads: int,
) -> list[Measured]:
    tokens = TensorSpec("tokens", (options.batch, *resolution, attention.config.dim))
    capture = Capture(attention, (tokens,), (replace(tokens, name="attended"),), {})
    expected = expectations(attention, capture.outputs, make_probes((tokens,))[:1])
    problems: dict[str, str] = {}
    good: list[tuple[str, Path]] = []
    with tempfile.TemporaryDirectory() as folder:
        for lowering in lowerings():
            try:
                built = replace(capture, module=lowering.build(attention).eval())
                record = write_artifact(target, lowering.name, built, Path(folder), options)
            except (SlideDeployError, ConversionError) as error:
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
    failed = [Measured(layers, resolution, f, None, None, p) for f, p in problems.items()]
    return [*measured, *failed]


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
