"""Measures where in a model an artifact loses accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slide_deploy import registry
from slide_deploy.errors import UsageError
from slide_deploy.loading.loader import Model
from slide_deploy.loading.packaging import packaged_as
from slide_deploy.parity.block_trace import VANISHED, BlockError
from slide_deploy.pipeline.reference import calibration_set, reference_of
from slide_deploy.quantization.calibration import SYNTHETIC
from slide_deploy.types import Precision, silent
from slide_deploy.utils.records import Count, Figure
from slide_deploy.verification.interface import axes_of
from slide_deploy.verification.judge import Progress
from slide_deploy.verification.runner import read_artifact, trace_artifact

__all__ = ["BlockLoss", "LossCurve", "block_losses"]

# Runs of an artifact: losses differ little between images.
RUNS = 4


@dataclass(frozen=True)
class BlockLoss:
    """The signal-to-noise ratio of a block's output, and how much lower it is than the lowest
    before it, NaN of the first. Both are NaN where the artifact has no such value: a converter has
    merged it."""

    block: str
    snr_db: Figure
    loss_db: Figure


@dataclass(frozen=True)
class LossCurve:
    """The blocks of an artifact in the order of the model, over `runs` of it on `inputs`."""

    artifact: str
    precision: str
    runtime: str
    inputs: str
    runs: Count
    blocks: tuple[BlockLoss, ...]


def block_losses(
    artifact: Path,
    model: Model,
    *,
    calibration: Path | str | None = None,
    progress: Progress = silent,
) -> LossCurve:
    """Compare every block of `artifact` with `model` in float64.

    `calibration` is a calibration set, whose first inputs are taken; None makes synthetic ones.
    Raises UsageError where the model has no blocks, and ArtifactError where the artifact cannot be
    run.
    """
    names = model.block_names(model.module)
    if not names:
        raise UsageError(
            f"{model.name} has no blocks to compare", "give a model with named submodules"
        )
    target = registry.recognise(artifact).target
    progress(f"reading {artifact.name}")
    about = read_artifact(target, artifact, {})
    model = packaged_as(model, about.metadata)
    samples = calibration_set(model, calibration or SYNTHETIC)
    assert samples is not None
    runs = samples.runs(axes_of(about.inputs, artifact.name).batch)[:RUNS]
    reference = reference_of(model)
    assert reference.blocks is not None
    traces = []
    for number, inputs in enumerate(runs, 1):
        progress(f"comparing the blocks of {artifact.name}: {number} of {len(runs)}")
        blocks = reference.blocks(inputs, Precision.FLOAT32)
        traces.append(trace_artifact(target, artifact, inputs, blocks))
    return LossCurve(
        artifact=artifact.name,
        precision=about.precision,
        runtime=about.runtime,
        inputs=samples.source,
        runs=len(runs),
        blocks=_losses(traces),
    )


def _losses(traces: Sequence[Sequence[BlockError]]) -> tuple[BlockLoss, ...]:
    found: list[BlockLoss] = []
    lowest = math.nan
    for index, errors in enumerate(zip(*traces, strict=True)):
        own = all(_is_own(trace, index) for trace in traces)
        snr = _together(errors) if own else math.nan
        found.append(BlockLoss(errors[0].block, snr, lowest - snr))
        lowest = min((value for value in (lowest, snr) if not math.isnan(value)), default=math.nan)
    return tuple(found)


def _is_own(trace: Sequence[BlockError], index: int) -> bool:
    """Whether the artifact has the block's value, and not one that is only similar: the error of
    the block itself would have reached those after it."""
    error = trace[index]
    return error.found and not any(
        later.max_abs_error < VANISHED * error.max_abs_error for later in trace[index + 1 :]
    )


def _together(errors: Sequence[BlockError]) -> float:
    """The ratio over all runs, whose powers of noise are averaged."""
    ratios = [error.snr_db for error in errors if error.snr_db is not None]
    power = sum(10 ** (-ratio / 10) for ratio in ratios) / len(ratios)
    return -10 * math.log10(power) if power else math.inf
