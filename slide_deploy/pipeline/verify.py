"""Verifies artifacts against their model."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from slide_deploy import registry
from slide_deploy.artifacts.manifest import Artifact, Manifest
from slide_deploy.artifacts.prepare import preparer
from slide_deploy.artifacts.write import write_artifact
from slide_deploy.errors import UsageError
from slide_deploy.loading.loader import Model
from slide_deploy.loading.packaging import containing
from slide_deploy.lowering.selection import AUTO
from slide_deploy.packaging.classifier import Conclusion
from slide_deploy.packaging.preprocessing import Preprocessing
from slide_deploy.parity.fresh_probes import new_seed
from slide_deploy.pipeline.reference import Images, calibration_set, reference_of
from slide_deploy.quantization.calibration import SYNTHETIC, CalibrationSet
from slide_deploy.quantization.catalog import scheme_named
from slide_deploy.types import DynamicAxes, Options, silent
from slide_deploy.verification.check import check_artifact
from slide_deploy.verification.folder import Listed, listed_artifacts, record_problems
from slide_deploy.verification.judge import Progress, Reference, VerificationPolicy
from slide_deploy.verification.outcome import report_of
from slide_deploy.verification.record import Report

__all__ = ["float_artifact", "verify"]

CALIBRATED = VerificationPolicy()


def verify(
    artifacts: Path | str | Sequence[Path | str],
    model: Model,
    *,
    policy: VerificationPolicy = CALIBRATED,
    images: Images = (),
    progress: Progress = silent,
    command: str = "",
    seed: int | None = None,
    calibration: Path | str | None = None,
) -> Report:
    """Compare artifacts on disk with `model`, each in a fresh process.

    If there is a manifest beside an artifact, it must agree with file and model. An output folder
    of an export stands for all of its artifacts. `images` are additional probes: a folder, or
    arrays as the artifacts take them.
    `seed` repeats the fresh probes of an earlier report. `calibration` is the calibration set that
    quantized artifacts were made with.
    """
    seed = new_seed() if seed is None else seed
    given = [artifacts] if isinstance(artifacts, (str, Path)) else artifacts
    found, notes = listed_artifacts(tuple(map(Path, given)))
    calibration = calibration or _recorded_calibration(found, policy)

    @cache
    def model_for(
        way: Preprocessing | None, labels: tuple[str, ...], conclusion: Conclusion
    ) -> tuple[Model, Reference, CalibrationSet | None]:
        own = containing(model, way, labels, conclusion)
        samples = calibration_set(own, calibration)
        return own, reference_of(own, progress, images, samples, seed=seed), samples

    checks = []
    with tempfile.TemporaryDirectory(prefix="slide-deploy-") as folder:
        for listed in found:
            path, record = listed.path, listed.record
            if record:
                contents = (record.preprocessing, record.labels, record.conclusion)
            else:
                contents = (model.contained_preprocessing, (), model.conclusion)
            own, reference, samples = model_for(*contents)
            known: list[str] = []
            if listed.manifest and record:
                known += record_problems(path, record)
                known += _source_problems(path, listed.manifest, reference)
            asked = record.precision if record else policy.precision
            program = partial(float_artifact, own, samples, path, record, asked, Path(folder))
            check = check_artifact(path, reference, record, policy, progress, tuple(known), program)
            checks.append(check)
    return report_of(reference, tuple(checks), command, notes)


def _recorded_calibration(found: Sequence[Listed], policy: VerificationPolicy) -> str | None:
    """The calibration set of these artifacts, where it is made here; UsageError for another one."""
    calibrated = [own.record for own in found if own.record and own.record.calibration]
    for record in calibrated:
        if record.calibration != SYNTHETIC:
            raise UsageError(
                f"{record.path} was calibrated on {record.calibration}: it is needed again",
                "pass --calibration with this set, or leave out --against to judge its cost alone",
            )
    asked = policy.precision and scheme_named(policy.precision).quantized
    return SYNTHETIC if calibrated or asked else None


def float_artifact(
    model: Model,
    calibration: CalibrationSet | None,
    path: Path,
    record: Artifact | None,
    asked: str | None,
    folder: Path,
    axes: DynamicAxes,
    smooth: float,
    precision: str,
) -> Path:
    """The artifact of the model at this precision, with SmoothQuant of this strength, that `path`,
    of the precision `asked`, is compared with."""
    target = registry.recognise(path).target
    lowerings = {layer.form for layer in record.lowering} if record else set()
    fixed = isinstance(axes.batch, int)
    options = Options(
        precision=precision,
        batch=axes.batch if isinstance(axes.batch, int) else 1,
        dynamic=not fixed,
        dynamic_size=axes.any_size,
        lowering=lowerings.pop() if len(lowerings) == 1 else AUTO,
    )
    options_asked = replace(options, precision=scheme_named(asked or precision).name)
    prepare = preparer(model, options_asked, calibration=calibration)
    capture = prepare(target, smooth).capture
    own = folder / precision
    own.mkdir(exist_ok=True)
    return own / write_artifact(target, path.name, capture, own, options).path


def _source_problems(path: Path, manifest: Manifest, reference: Reference) -> list[str]:
    if manifest.source.same_weights(reference.source):
        return []
    return [f"{path.name} was exported from {manifest.source}, not from {reference.source}"]
