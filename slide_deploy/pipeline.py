"""load → fuse → export → verify, as plain functions; the CLI is a thin layer on these."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from threading import Lock

import numpy as np
import torch

from slide_deploy import registry
from slide_deploy.artifacts.manifest import (
    Artifact,
    Manifest,
    SourceRecord,
    find_manifest,
    toolchain,
)
from slide_deploy.artifacts.options import options_by_target
from slide_deploy.artifacts.prepare import (
    PreparedModel,
    SizeOf,
    preparer,
    size_of_model,
    source_of,
)
from slide_deploy.artifacts.write import require, save_golden, save_manifest, write_artifact
from slide_deploy.errors import CheckpointError, ConversionError, MissingLibrary, SlideDeployError
from slide_deploy.loading.dynamic_size import sized
from slide_deploy.loading.loader import Model
from slide_deploy.packaging.preprocessing import prepare
from slide_deploy.parity.expectation import Expectation
from slide_deploy.parity.probes import Probe, image_probes, make_probes
from slide_deploy.reference import block_references, expectations
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
from slide_deploy.verification.baseline import regressions
from slide_deploy.verification.check import check_artifact
from slide_deploy.verification.judge import Progress, Reference, VerificationPolicy
from slide_deploy.verification.record import Check, Report, now, overall
from slide_deploy.verification.recorded import record_problems

__all__ = ["export", "export_and_verify", "reference_of", "verify"]

DEFAULTS, CALIBRATED = Options(), VerificationPolicy()

# A batch that is neither 1 nor what models are traced with.
OTHER_BATCH = 3

Prepare = Callable[[str], PreparedModel]


def export(
    model: Model,
    targets: str | Sequence[str],
    output: Path | str,
    options: Options = DEFAULTS,
    progress: Progress = silent,
) -> Manifest:
    """Write one artifact per target into the folder `output`, its manifest and golden vectors.

    `targets` are names or aliases, one or several; `all` is every target. `progress` is called
    with a line of text before each step. Raises UsageError for options that no target has, and
    at the first target that cannot be written ConversionError, MissingLibrary or OutputError;
    then nothing in `output` has changed.
    """
    output, targets = Path(output), registry.resolve_targets(targets)
    wanted = options_by_target(targets, options)
    options = next(iter(wanted.values()))  # what targets share is the same in all
    for target in targets:
        require(target)
    size_of = size_of_model(model)
    prepare = preparer(model, options, size_of)
    reference = reference_of(model, progress, size_of=size_of)
    with staged_folder(output) as scratch:
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
    """Hold artifacts on disk against `model`, the unfused reference, each in a fresh process.

    The manifest beside an artifact, where there is one, must agree with file and model. A
    folder that export wrote stands for all of its artifacts. `images` (each (C, H, W)) become
    probes of their own.
    """
    reference = reference_of(model, progress, tuple(images))
    given = [artifacts] if isinstance(artifacts, (str, Path)) else artifacts
    checks = []
    for path in (found for place in given for found in _artifacts_at(Path(place))):
        manifest = find_manifest(path.parent)
        record = manifest.entry(path) if manifest else None
        found: list[str] = []
        if manifest and record:
            found = [*record_problems(path, record), *_source_problems(path, manifest, reference)]
        checks.append(check_artifact(path, reference, record, policy, progress, tuple(found)))
    return _report(reference, tuple(checks), command)


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

    Takes targets as `export` does, and raises UsageError as it does. One target's trouble does
    not stop the others: it becomes a failed check, or one that did not run. What is worse than
    in `baseline`, an earlier report, fails too. Artifacts are verified where they were staged,
    then take their places together.
    """
    output = Path(output)
    wanted = options_by_target(registry.resolve_targets(targets), options)
    options = next(iter(wanted.values()))  # what targets share is the same in all
    size_of = size_of_model(model)
    prepare = preparer(model, options, size_of)
    reference = reference_of(model, progress, tuple(images), size_of=size_of)
    artifacts: list[Artifact] = []
    checks: list[Check | Future[Check]] = []
    with staged_folder(output) as scratch:
        # Converters use one core: the reference and the artifacts already written the other.
        with _sharing_cores(), ThreadPoolExecutor(max_workers=2) as background:
            background.submit(reference.expect, options.dynamic_axes, options.precision)
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
                checks.append(
                    background.submit(check_artifact, path, reference, record, policy, progress)
                )
        _record(model, reference, tuple(artifacts), scratch, output)
        done = tuple(check if isinstance(check, Check) else check.result() for check in checks)
        report = _report(reference, done, command)
        if baseline is not None:
            report = regressions(report, baseline)
        save_reports(report, scratch)
    return report


@contextmanager
def _sharing_cores() -> Iterator[None]:
    """Let the reference run beside converters, which hold Python's lock for seconds.

    It asks for the lock at each of a thousand small operators: waiting the usual 5 ms for each
    made it four times as slow, and so did a second torch thread without a core of its own.
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

    The model runs once per dynamic axes and precision, when they are first asked for.
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
        probes += (again(others, f"batch of {OTHER_BATCH}", "a free batch is really free"),)
    if axes.any_size:
        size = size_of().other
        others = (with_batch(sized(spec, size), batch) for spec in model.inputs)
        why = "free height and width are really free"
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
    if artifacts:
        expected = reference.expect(dynamic_axes_of(artifacts[0].inputs), artifacts[0].precision)
        artifacts = save_golden(artifacts, expected, scratch, model.name)
    return save_manifest(model, artifacts, scratch, output)


def _artifacts_at(path: Path) -> list[Path]:
    if not path.exists():
        raise CheckpointError(f"{path} does not exist", "check the path")
    manifest = find_manifest(path) if path.is_dir() else None
    return [path / record.path for record in manifest.artifacts] if manifest else [path]


def _source_problems(path: Path, manifest: Manifest, reference: Reference) -> list[str]:
    was, now = manifest.source, reference.source
    if (was.sha256, was.weights) == (now.sha256, now.weights):
        return []
    return [f"{path.name} was exported from {_described(was)}, not from {_described(now)}"]


def _described(source: SourceRecord) -> str:
    return f"{source.path_name} ({source.weights} weights, sha256 {source.sha256[:12]}…)"


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


def _report(reference: Reference, checks: tuple[Check, ...], command: str) -> Report:
    return Report(
        verdict=overall(checks),
        source=reference.source,
        model=reference.name,
        reference=reference.reference,
        checks=checks,
        command=command,
        toolchain=toolchain(),
        date=now(),
    )
