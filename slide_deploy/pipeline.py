"""The functions that export and verify models; the command line calls them."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from threading import Lock

import numpy as np
from torch import nn

from slide_deploy import registry
from slide_deploy.artifacts.manifest import Artifact, Manifest, toolchain
from slide_deploy.artifacts.options import options_by_target
from slide_deploy.artifacts.prepare import (
    PreparedModel,
    SizeOf,
    preparer,
    size_of_model,
    source_of,
)
from slide_deploy.artifacts.write import (
    record_golden,
    require,
    save_manifest,
    superseded_golden,
    write_artifact,
)
from slide_deploy.errors import ConversionError, MissingLibrary, SlideDeployError
from slide_deploy.loading.loader import Model
from slide_deploy.loading.probes import drawn_probes, is_judged, recorded_probes
from slide_deploy.packaging.preprocessing import prepare
from slide_deploy.parity.expectation import Expectation
from slide_deploy.parity.fresh_probes import nan_probe, new_seed
from slide_deploy.parity.probes import Probe
from slide_deploy.reference.blocks import block_references
from slide_deploy.reference.equals import equal_modules
from slide_deploy.reference.expectations import expectations
from slide_deploy.reference.noise import without_luck
from slide_deploy.reference.run import run_module
from slide_deploy.report.formats import save_reports
from slide_deploy.types import (
    DynamicAxes,
    Options,
    TensorSpec,
    Verdict,
    dynamic_axes_of,
    silent,
    with_batch,
)
from slide_deploy.utils.cores import sharing_cores
from slide_deploy.utils.staging import staged_folder
from slide_deploy.verification.background import background
from slide_deploy.verification.baseline import regressions
from slide_deploy.verification.check import check_artifact
from slide_deploy.verification.folder import listed_artifacts, record_problems
from slide_deploy.verification.judge import Progress, Reference, VerificationPolicy
from slide_deploy.verification.record import Check, Report, now, overall

__all__ = ["export", "export_and_verify", "reference_of", "verify"]

DEFAULTS, CALIBRATED = Options(), VerificationPolicy()

Prepare = Callable[[str], PreparedModel]
Equals = Callable[[DynamicAxes, str], list[nn.Module]]


def export(
    model: Model,
    targets: str | Sequence[str],
    output: Path | str,
    options: Options = DEFAULTS,
    progress: Progress = silent,
) -> Manifest:
    """Write one artifact per target, a manifest and golden vectors into the folder `output`.

    `targets` are one or several names or aliases; `all` is every target. `progress` is called
    with a line of text before each step. Raises UsageError for options that no target has, and
    ConversionError, MissingLibrary or OutputError for the first target that cannot be written; in
    this case `output` is unchanged.
    """
    output, targets = Path(output), registry.resolve_targets(targets)
    wanted = options_by_target(targets, options)
    options = next(iter(wanted.values()))  # the common options are the same for all targets
    for target in targets:
        require(target)
    size_of = size_of_model(model)
    prepare = preparer(model, options, size_of)
    reference = reference_of(model, progress, size_of=size_of)
    with staged_folder(output, superseded_golden) as scratch:
        artifacts = []
        for target in wanted:
            progress(f"exporting {registry.exporter(target).title}")
            artifacts.append(_write(target, model, prepare, scratch, wanted[target]))
        return _record(model, reference, tuple(artifacts), scratch, output)


def verify(
    artifacts: Path | str | Sequence[Path | str],
    model: Model,
    *,
    policy: VerificationPolicy = CALIBRATED,
    images: Sequence[np.ndarray] = (),
    progress: Progress = silent,
    command: str = "",
    seed: int | None = None,
) -> Report:
    """Compare artifacts on disk with `model`, each in a fresh process.

    If there is a manifest beside an artifact, it must agree with file and model. An output folder
    of an export stands for all of its artifacts. `images`, each (C, H, W), are additional probes.
    `seed` repeats the fresh probes of an earlier report.
    """
    seed = new_seed() if seed is None else seed
    reference = reference_of(model, progress, tuple(images), seed=seed)
    given = [artifacts] if isinstance(artifacts, (str, Path)) else artifacts
    found, notes = listed_artifacts(tuple(map(Path, given)))
    checks = []
    for listed in found:
        path, record = listed.path, listed.record
        known: list[str] = []
        if listed.manifest and record:
            known += record_problems(path, record)
            known += _source_problems(path, listed.manifest, reference)
        checks.append(check_artifact(path, reference, record, policy, progress, tuple(known)))
    return _report(reference, tuple(checks), command, notes)


def export_and_verify(
    model: Model,
    targets: str | Sequence[str],
    output: Path | str,
    options: Options = DEFAULTS,
    *,
    policy: VerificationPolicy = CALIBRATED,
    images: Sequence[np.ndarray] = (),
    baseline: Report | None = None,
    progress: Progress = silent,
    command: str = "",
    seed: int | None = None,
) -> Report:
    """Export and verify, writing artifacts, `manifest.json`, golden vectors and reports.

    `targets` and UsageError are as in `export`. An error in one target does not stop the others:
    its check fails or is `not_run`. Artifacts that are worse than in `baseline`, an earlier report,
    fail too. Artifacts are verified in a scratch folder, then moved into place together. `seed`
    repeats the fresh probes of an earlier report.
    """
    output = Path(output)
    wanted = options_by_target(registry.resolve_targets(targets), options)
    options = next(iter(wanted.values()))  # the common options are the same for all targets
    size_of = size_of_model(model)
    prepare = preparer(model, options, size_of)
    seed = new_seed() if seed is None else seed
    artifacts: list[Artifact] = []
    checks: list[Check | Future[Check]] = []
    with staged_folder(output, superseded_golden) as scratch:
        # Converters use one core: the reference and the artifacts already written the other.
        equals = cache(partial(equal_modules, model))
        equals(options.dynamic_axes, options.precision)  # may trace, as converters do: not at once
        with sharing_cores(), background(progress) as (submit, step):
            reference = reference_of(
                model, step, tuple(images), size_of=size_of, seed=seed, equals=equals
            )
            for run in (reference.expect, reference.fresh):
                submit(run, options.dynamic_axes, options.precision)
            for target, own in wanted.items():
                progress(f"exporting {registry.exporter(target).title}")
                try:
                    require(target)
                    record = _write(target, model, prepare, scratch, own)
                except (ConversionError, MissingLibrary) as error:
                    checks.append(_not_exported(target, model, own, error))
                    continue
                artifacts.append(record)
                path = scratch / record.path
                checks.append(submit(check_artifact, path, reference, record, policy, step))
        if artifacts:  # else an earlier manifest stays
            _record(model, reference, tuple(artifacts), scratch, output)
        done = tuple(check if isinstance(check, Check) else check.result() for check in checks)
        report = _report(reference, done, command)
        if baseline is not None:
            report = regressions(report, baseline)
        save_reports(report, scratch)
    return report


def reference_of(
    model: Model,
    progress: Progress = silent,
    images: tuple[np.ndarray, ...] = (),
    *,
    size_of: SizeOf | None = None,
    seed: int | None = None,
    equals: Equals | None = None,
) -> Reference:
    """The reference that artifacts of a model are compared with.

    The model runs once for each combination of dynamic axes and precision, on first use. Fresh
    probes are drawn from `seed`; None leaves them out.
    """
    kind = "fused" if model.fused else "unfused"
    size_of = size_of or size_of_model(model)

    def specs(axes: DynamicAxes) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        free = size_of() if axes.any_size else model
        inputs, outputs = (
            tuple(with_batch(spec, axes.batch) for spec in side)
            for side in (free.inputs, free.outputs)
        )
        return inputs, outputs

    running = partial(
        _running, model, progress, Lock(), equals or cache(partial(equal_modules, model))
    )
    expect = running(lambda axes: recorded_probes(model, axes, images, size_of))
    draw = running(lambda axes: drawn_probes(model, axes, seed or 0, size_of))

    def fresh(axes: DynamicAxes, precision: str) -> tuple[Expectation, ...]:
        if seed is None:
            return ()
        recorded = expect(axes, precision)
        return without_luck((*recorded, *draw(axes, precision)))[len(recorded) :]

    return Reference(
        name=model.name,
        source=source_of(model),
        reference=f"{kind} PyTorch model in float64, {model.source.weights} weights",
        specs=specs,
        expect=expect,
        blocks=lambda inputs, precision: block_references(
            model.module,
            model.block_names(model.module),
            prepare(model.preprocessing, inputs),
            precision,
        ),
        fresh=fresh,
        nan=cache(lambda axes: _with_nan(model, recorded_probes(model, axes, (), size_of)[0])),
        seed=seed,
    )


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
        )
        return tuple(filter(is_judged, found))

    def run_alone(axes: DynamicAxes, precision: str) -> tuple[Expectation, ...]:
        with lock:
            return run(axes, precision)

    return run_alone


def _with_nan(model: Model, probe: Probe) -> Expectation | None:
    """What the model, in float32, makes of a probe with a NaN; None where it takes none."""
    if (asked := nan_probe(probe)) is None:
        return None
    try:
        inputs = prepare(model.preprocessing, asked.inputs)
        outputs = run_module(model.module, model.outputs, inputs)
    except Exception:  # the user's own forward may refuse it
        return None
    return Expectation(asked.name, asked.why, asked.inputs, outputs, {})


def _write(
    target: str, model: Model, prepare: Prepare, scratch: Path, options: Options
) -> Artifact:
    prepared = prepare(target)
    record = write_artifact(target, model.name, prepared.capture, scratch, options)
    return replace(record, lowering=prepared.lowering)


def _record(
    model: Model, reference: Reference, artifacts: tuple[Artifact, ...], scratch: Path, output: Path
) -> Manifest:
    expected = reference.expect(dynamic_axes_of(artifacts[0].inputs), artifacts[0].precision)
    artifacts = record_golden(model, artifacts, expected, scratch)
    return save_manifest(model, artifacts, scratch, output)


def _repeating(command: str, seed: int | None) -> str:
    """The command that draws the same probes."""
    told = seed is None or not command or "--seed" in command
    return command if told else f"{command} --seed {seed}"


def _source_problems(path: Path, manifest: Manifest, reference: Reference) -> list[str]:
    if manifest.source.same_weights(reference.source):
        return []
    return [f"{path.name} was exported from {manifest.source}, not from {reference.source}"]


def _not_exported(target: str, model: Model, options: Options, error: SlideDeployError) -> Check:
    missing = isinstance(error, MissingLibrary)
    exporter = registry.exporter(target)
    return Check(
        target=exporter.target,
        path=exporter.file_name(model.name),
        precision=options.precision,
        verdict=Verdict.NOT_RUN if missing else Verdict.FAIL,
        problems=(str(error),),
        details="".join(traceback.format_exception(error)),
    )


def _report(
    reference: Reference, checks: tuple[Check, ...], command: str, notes: tuple[str, ...] = ()
) -> Report:
    return Report(
        verdict=overall(checks),
        source=reference.source,
        model=reference.name,
        reference=reference.reference,
        checks=checks,
        command=_repeating(command, reference.seed),
        toolchain=toolchain(),
        notes=notes,
        date=now(),
        seed=reference.seed,
    )
