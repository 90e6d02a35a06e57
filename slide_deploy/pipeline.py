"""The functions that export and verify models; the command line calls them."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from threading import Lock

import numpy as np
import torch
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
from slide_deploy.loading.dynamic_size import sized
from slide_deploy.loading.loader import Model
from slide_deploy.lowering.selection import AUTO, lower_for
from slide_deploy.models.families import simplified
from slide_deploy.packaging.preprocessing import prepare
from slide_deploy.parity.expectation import Expectation
from slide_deploy.parity.probes import Probe, image_probes, make_probes
from slide_deploy.quantization.catalog import scheme_named
from slide_deploy.reference.blocks import block_references
from slide_deploy.reference.expectations import expectations
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
from slide_deploy.utils.staging import staged_folder
from slide_deploy.verification.background import background
from slide_deploy.verification.baseline import regressions
from slide_deploy.verification.check import check_artifact
from slide_deploy.verification.folder import listed_artifacts, record_problems
from slide_deploy.verification.judge import Progress, Reference, VerificationPolicy
from slide_deploy.verification.record import Check, Report, now, overall

__all__ = ["export", "export_and_verify", "reference_of", "verify"]

DEFAULTS, CALIBRATED = Options(), VerificationPolicy()

# A batch size other than 1 and than that of tracing.
OTHER_BATCH = 3

Prepare = Callable[[str], PreparedModel]


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
) -> Report:
    """Compare artifacts on disk with `model`, each in a fresh process.

    If there is a manifest beside an artifact, it must agree with file and model. An output folder
    of an export stands for all of its artifacts. `images`, each (C, H, W), are additional probes.
    """
    reference = reference_of(model, progress, tuple(images))
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
) -> Report:
    """Export and verify, writing artifacts, `manifest.json`, golden vectors and reports.

    `targets` and UsageError are as in `export`. An error in one target does not stop the others:
    its check fails or is `not_run`. Artifacts that are worse than in `baseline`, an earlier report,
    fail too. Artifacts are verified in a scratch folder, then moved into place together.
    """
    output = Path(output)
    wanted = options_by_target(registry.resolve_targets(targets), options)
    options = next(iter(wanted.values()))  # the common options are the same for all targets
    size_of = size_of_model(model)
    prepare = preparer(model, options, size_of)
    artifacts: list[Artifact] = []
    checks: list[Check | Future[Check]] = []
    with staged_folder(output, superseded_golden) as scratch:
        # Converters use one core: the reference and the artifacts already written the other.
        with _sharing_cores(), background(progress) as (submit, step):
            reference = reference_of(model, step, tuple(images), size_of=size_of)
            submit(reference.expect, options.dynamic_axes, options.precision)
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


@contextmanager
def _sharing_cores() -> Iterator[None]:
    """Let the reference run at the same time as converters, which hold Python's lock for seconds.

    The reference acquires the lock for each of a thousand small operators. The default switch
    interval of 5 ms made it four times slower, and so did a second torch thread without a core.
    """
    threads, interval = torch.get_num_threads(), sys.getswitchinterval()
    torch.set_num_threads(max(1, threads // 2))
    sys.setswitchinterval(1e-4)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        sys.setswitchinterval(interval)


def reference_of(
    model: Model,
    progress: Progress = silent,
    images: tuple[np.ndarray, ...] = (),
    *,
    size_of: SizeOf | None = None,
) -> Reference:
    """The reference that artifacts of a model are compared with.

    The model runs once for each combination of dynamic axes and precision, on first use.
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

    one_at_a_time = Lock()
    prepared = partial(prepare, model.preprocessing)

    def expect(axes: DynamicAxes, precision: str) -> tuple[Expectation, ...]:
        with one_at_a_time:
            return run(axes, precision)

    @cache
    def run(axes: DynamicAxes, precision: str) -> tuple[Expectation, ...]:
        return expectations(
            model.module,
            model.outputs,
            _probes(model, axes, images, size_of),
            precision=precision,
            equals=_equals(model, axes, precision),
            on_probe=lambda name: progress(f"running the reference: {name}"),
            prepare=prepared,
        )

    return Reference(
        name=model.name,
        source=source_of(model),
        reference=f"{kind} PyTorch model in float64, {model.source.weights} weights",
        specs=specs,
        expect=expect,
        blocks=lambda inputs, precision: block_references(
            model.module, model.block_names(model.module), prepared(inputs), precision
        ),
    )


def _equals(model: Model, axes: DynamicAxes, precision: str) -> list[nn.Module]:
    """Modules that compute what the model does in another order, the fused one last.

    Where the precision rounds weights, its lowerings are among them: their weights differ.
    """
    fused = simplified(model.merged)
    if axes.any_size or scheme_named(precision).rounded is None:
        return [fused]
    lowered = {}
    for target in registry.target_names():
        module, layers = lower_for(fused, model.inputs, AUTO, target, {})
        lowered[tuple(layer.form for layer in layers)] = module
    return [*lowered.values(), fused]


def _probes(
    model: Model, axes: DynamicAxes, images: tuple[np.ndarray, ...], size_of: SizeOf
) -> tuple[Probe, ...]:
    batch = axes.batch if isinstance(axes.batch, int) else 1
    probes = make_probes(tuple(with_batch(spec, batch) for spec in model.inputs))

    def again(inputs: Iterable[TensorSpec], name: str, why: str) -> Probe:
        first = make_probes(tuple(inputs))[0]
        return replace(first, name=f"{first.name}, {name}", why=why)

    if not isinstance(axes.batch, int):
        others = (with_batch(spec, OTHER_BATCH) for spec in model.inputs)
        probes += (again(others, f"batch of {OTHER_BATCH}", "the batch size is free"),)
    if axes.any_size:
        size = size_of().other
        others = (with_batch(sized(spec, size), batch) for spec in model.inputs)
        why = "height and width are free"
        probes += (again(others, "x".join(map(str, size)), why),)
    return (*probes, *image_probes(model.inputs, images, batch))


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
        command=command,
        toolchain=toolchain(),
        notes=notes,
        date=now(),
    )
