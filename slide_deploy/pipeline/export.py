"""Exports models, and verifies what was written."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from slide_deploy import registry
from slide_deploy.artifacts.manifest import Artifact, Manifest
from slide_deploy.artifacts.options import options_by_target
from slide_deploy.artifacts.prepare import (
    Prepare,
    contents_of,
    preparer,
    recipe_of,
    size_of_model,
)
from slide_deploy.artifacts.write import (
    record_golden,
    require,
    save_manifest,
    superseded_golden,
    with_next_step,
    write_artifact,
)
from slide_deploy.errors import ConversionError, MissingLibrary, SlideDeployError
from slide_deploy.loading.loader import Model
from slide_deploy.parity.fresh_probes import new_seed
from slide_deploy.pipeline.labelled import Labelled, labelled_images, with_accuracy
from slide_deploy.pipeline.quantize import Quantizer, program_folder
from slide_deploy.pipeline.reference import Images, calibration_set, reference_of
from slide_deploy.quantization.calibration import CalibrationSet
from slide_deploy.quantization.catalog import scheme_named
from slide_deploy.quantization.program import has_program, program_precision
from slide_deploy.reference.equals import equal_modules
from slide_deploy.report.formats import save_reports
from slide_deploy.types import DynamicAxes, Options, Verdict, dynamic_axes_of, silent
from slide_deploy.utils.cores import sharing_cores
from slide_deploy.utils.staging import staged_folder
from slide_deploy.verification.background import background
from slide_deploy.verification.baseline import regressions
from slide_deploy.verification.check import Program, check_artifact
from slide_deploy.verification.judge import Progress, Reference, VerificationPolicy
from slide_deploy.verification.outcome import report_of
from slide_deploy.verification.record import Check, Report

__all__ = ["export", "export_and_verify"]

DEFAULTS, CALIBRATED = Options(), VerificationPolicy()


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
    output, targets, given = Path(output), registry.resolve_targets(targets), options
    wanted = options_by_target(targets, options)
    options = next(iter(wanted.values()))  # the common options are the same for all targets
    for target in targets:
        require(target)
    calibration = calibration_set(model, options.calibration)
    size_of = size_of_model(model)
    prepare = preparer(model, options, size_of, calibration)
    labelled = labelled_images(model, options, progress)
    reference = reference_of(model, progress, size_of=size_of, calibration=calibration)
    with staged_folder(output, superseded_golden) as scratch, _temporary_folder() as programs:
        about = (model, prepare, scratch, programs, calibration, labelled, reference, progress)
        write = partial(_write, *about)
        artifacts = []
        for target, own in wanted.items():
            progress(f"exporting {registry.exporter(target).title}")
            recipe = recipe_of(model, target, given)
            artifacts.append(replace(write(target, own), recipe=recipe))
        return _record(model, reference, tuple(artifacts), scratch, output)


def export_and_verify(
    model: Model,
    targets: str | Sequence[str],
    output: Path | str,
    options: Options = DEFAULTS,
    *,
    policy: VerificationPolicy = CALIBRATED,
    images: Images = (),
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
    output, given = Path(output), options
    wanted = options_by_target(registry.resolve_targets(targets), options)
    options = next(iter(wanted.values()))  # the common options are the same for all targets
    calibration, size_of = calibration_set(model, options.calibration), size_of_model(model)
    prepare = preparer(model, options, size_of, calibration)
    seed = new_seed() if seed is None else seed
    labelled = labelled_images(model, options, progress)
    artifacts: list[Artifact] = []
    checks: list[Check | Future[Check]] = []
    with staged_folder(output, superseded_golden) as scratch, _temporary_folder() as programs:
        # Converters use one core: the reference and the artifacts already written the other.
        axes, precision = options.dynamic_axes, scheme_named(options.precision).program
        equals = cache(partial(equal_modules, model))
        equals(axes, precision)  # may trace, as converters do: not at once
        with sharing_cores(), background(progress) as (submit, step):
            reference = reference_of(
                *(model, step, images, calibration),
                size_of=size_of,
                seed=seed,
                equals=equals,
            )
            about = (model, prepare, scratch, programs, calibration, labelled, reference, step)
            write = partial(_write, *about)
            submit(reference.expect, axes, precision)
            submit(reference.fresh, axes, precision)
            for target, own in wanted.items():
                progress(f"exporting {registry.exporter(target).title}")
                try:
                    record = replace(write(target, own), recipe=recipe_of(model, target, given))
                except (ConversionError, MissingLibrary) as error:
                    checks.append(_not_exported(target, model, own, error))
                    continue
                artifacts.append(record)
                program = partial(_program, scratch, programs, record)
                check = partial(_checked, scratch / record.path, reference, record, policy)
                checks.append(submit(check, step, labelled, own.max_drop, program))
        new = _record(model, reference, tuple(artifacts), scratch, output) if artifacts else None
        done = tuple(check if isinstance(check, Check) else check.result() for check in checks)
        report = report_of(reference, done, command)
        report = regressions(report, baseline) if baseline else report
        save_reports(report, scratch, new)  # without artifacts, an earlier manifest stays
    return report


def _write(
    model: Model,
    prepare: Prepare,
    scratch: Path,
    programs: Path,
    calibration: CalibrationSet | None,
    labelled: Labelled | None,
    reference: Reference,
    progress: Progress,
    target: str,
    options: Options,
) -> Artifact:
    """Write an artifact to `scratch`; one of a reduced precision is made from, or compared with, a
    float one in `programs`."""
    require(target)
    scheme = scheme_named(options.precision)
    if calibration is not None and scheme.quantized:
        counting = labelled if options.max_drop is not None else None
        about = (model, prepare, calibration, programs, reference, counting, progress)
        record, prepared = Quantizer(*about).write(target, scratch, options)
    else:
        prepared = prepare(target)
        about_file = (target, model.name, prepared.capture)
        record = write_artifact(*about_file, scratch, options)
        if has_program(scheme, registry.runtime(target)):
            precision = program_precision(scheme, registry.exporter(target))
            folder = program_folder(programs, 0.0)
            folder.mkdir(exist_ok=True)
            write_artifact(*about_file, folder, replace(options, precision=precision))
    record = replace(record, lowering=prepared.lowering, **contents_of(model))
    return with_next_step(record, model.name, options.profile, calibration, scratch)


def _checked(
    path: Path,
    reference: Reference,
    record: Artifact,
    policy: VerificationPolicy,
    progress: Progress,
    labelled: Labelled | None,
    max_drop: float | None,
    program: Program,
) -> Check:
    check = check_artifact(path, reference, record, policy, progress, program=program)
    return with_accuracy(check, path, labelled, max_drop, progress) if labelled else check


def _program(
    scratch: Path,
    programs: Path,
    record: Artifact,
    axes: DynamicAxes,
    smooth: float,
    precision: str,
) -> Path:
    """The artifact of the same model at a precision: this one, or the float one."""
    own = scratch if precision == record.precision else program_folder(programs, smooth)
    return own / record.path


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="slide-deploy-") as folder:
        yield Path(folder)


def _record(
    model: Model, reference: Reference, artifacts: tuple[Artifact, ...], scratch: Path, output: Path
) -> Manifest:
    expected = reference.expect(dynamic_axes_of(artifacts[0].inputs), artifacts[0].precision)
    artifacts = record_golden(model, artifacts, expected, scratch)
    return save_manifest(model, artifacts, scratch, output)


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
