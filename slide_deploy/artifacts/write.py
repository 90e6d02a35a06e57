"""Write artifacts into a folder, with the manifest and golden vectors that describe them."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from slide_deploy import registry
from slide_deploy.artifacts.golden import save_golden
from slide_deploy.artifacts.manifest import Artifact, Manifest, find_manifest, toolchain
from slide_deploy.artifacts.options import float_options
from slide_deploy.artifacts.prepare import source_of
from slide_deploy.capture import Capture
from slide_deploy.errors import ConversionError, SlideDeployError, UsageError
from slide_deploy.loading.loader import Model
from slide_deploy.packaging.next_step import next_step, samples_folder, write_samples
from slide_deploy.packaging.profiles import takes_samples
from slide_deploy.parity.expectation import Expectation
from slide_deploy.protocols import Arrays, Calibration, Exporter, Ranges
from slide_deploy.quantization.calibration import CalibrationSet
from slide_deploy.quantization.catalog import scheme_named
from slide_deploy.types import Options, dynamic_axes_of
from slide_deploy.utils.files import remove, size_of
from slide_deploy.utils.hashing import sha256_of
from slide_deploy.utils.quiet import quiet

__all__ = [
    "quantize_artifact",
    "record_golden",
    "require",
    "save_manifest",
    "superseded_golden",
    "with_next_step",
    "write_artifact",
]

DEFAULTS = Options()

DISK_IS_FULL = 4096  # bytes left: less than a block


def require(target: str) -> None:
    """Raise MissingLibrary if a library of the target's exporter is not installed, and UsageError
    if it cannot be on this machine."""
    exporter = registry.exporter(target)
    if reason := exporter.unsupported():
        raise UsageError(
            f"{exporter.title} is not available on this machine: {reason}", "use another machine"
        )
    registry.require(f"export to {exporter.title}", exporter.packages, exporter.extra)


def write_artifact(
    target: str, name: str, capture: Capture, folder: Path, options: Options = DEFAULTS
) -> Artifact:
    """Write one artifact, named after `name`, into `folder`; returns its manifest entry.

    The artifact is not verified. Raises UsageError for options that the target does not have and
    for a quantized precision, and ConversionError if its converter fails; in this case nothing is
    left in `folder`.
    """
    if scheme_named(options.precision).quantized:
        raise UsageError(f"{options.precision} artifacts are made from float ones", "use export")
    exporter = registry.exporter(target)
    options = float_options(target, options)
    path = folder / exporter.file_name(name)
    _written(exporter, path, partial(exporter.write, capture, path, options), "conversion")
    return Artifact(
        target=exporter.target,
        path=path.name,
        precision=options.precision,
        sha256=sha256_of(path),
        size_bytes=size_of(path),
        inputs=capture.inputs,
        outputs=capture.outputs,
    )


def quantize_artifact(
    record: Artifact,
    capture: Capture,
    calibration: CalibrationSet,
    programs: Path,
    folder: Path,
    options: Options,
    kept: frozenset[str] = frozenset(),
) -> Artifact:
    """Write the quantized artifact of `record`, a float artifact in the folder `programs`, into
    `folder`; returns its manifest entry. Products named in `kept` stay in float. As
    `write_artifact` otherwise."""
    exporter = registry.exporter(record.target)
    about = {"calibration": calibration.source, "calibration_sha256": calibration.sha256}
    runs = calibration.runs(dynamic_axes_of(record.inputs).batch)
    taken = Calibration(
        runs=runs,
        metadata={**capture.metadata, **about},
        kept=kept,
        ranges=_measure(record.target, programs / record.path, runs),
    )
    path = folder / record.path
    assert exporter.quantize is not None  # options_by_target refuses precisions that it lacks
    quantize = partial(exporter.quantize, programs / record.path, path, taken, options)
    _written(exporter, path, quantize, "quantization")
    return replace(
        record,
        precision=options.precision,
        sha256=sha256_of(path),
        size_bytes=size_of(path),
        calibration=calibration.source,
        calibration_sha256=calibration.sha256,
    )


def with_next_step(
    record: Artifact, model: str, profile: str, calibration: CalibrationSet | None, folder: Path
) -> Artifact:
    """The record of an artifact in `folder` with what a vendor's tools do next, for which the
    samples of the calibration set are written beside it."""
    taken = calibration if takes_samples(profile) else None
    samples = samples_folder(model) if taken else ""
    step = next_step(profile, record.target, record.path, samples)
    if step and taken:
        write_samples(taken.runs(dynamic_axes_of(record.inputs).batch), folder / samples)
        step = replace(step, calibration=taken.source, calibration_sha256=taken.sha256)
    return replace(record, next_step=step)


def _measure(target: str, program: Path, runs: Sequence[Arrays]) -> Callable[[], Ranges] | None:
    """A function that measures a float artifact; None for a runtime that does not."""
    runtime = registry.runtime(target)
    measure = runtime.ranges
    if measure is None:
        return None

    def ranges() -> Ranges:
        registry.require(f"calibrate for {target}", runtime.packages, runtime.extra)
        return measure(program, runs)

    return ranges


def _written(exporter: Exporter, path: Path, write: Callable[[], None], step: str) -> None:
    """Call `write`, which writes `path`; where it fails, nothing is left of it."""
    try:
        with quiet():
            write()
        _refuse_full_disk(path.parent)  # some converters do not notice
    except Exception as error:  # converters may raise anything
        _refuse_full_disk(path.parent)
        remove(path)
        if isinstance(error, (SlideDeployError, OSError)):
            raise
        first = (str(error).strip().splitlines() or [""])[0]
        raise ConversionError(
            f"{exporter.title} {step} failed: {type(error).__name__}: {first[:200]}",
            "--debug shows the converter's traceback",
        ) from error


def _refuse_full_disk(folder: Path) -> None:
    if shutil.disk_usage(folder).free < DISK_IS_FULL:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def record_golden(
    model: Model,
    artifacts: tuple[Artifact, ...],
    expectations: tuple[Expectation, ...],
    folder: Path,
) -> tuple[Artifact, ...]:
    """Write the golden vectors that artifacts with the same dynamic axes and precision share; the
    artifacts with their name and hash."""
    first = artifacts[0]
    size = "any-size-" if dynamic_axes_of(first.inputs).any_size else ""
    stem = f"{model.name}.golden-{first.inputs[0].shape[0]}-{size}{first.precision}"
    source = source_of(model)
    path = save_golden(expectations, model.name, source, first.precision, folder / stem)
    digest = sha256_of(path)
    return tuple(replace(a, golden=path.name, golden_sha256=digest) for a in artifacts)


def save_manifest(
    model: Model, artifacts: tuple[Artifact, ...], scratch: Path, output: Path
) -> Manifest:
    """Write the manifest to `scratch`, including earlier artifacts in `output` of the same weights
    and outputs."""
    source = source_of(model)
    earlier = find_manifest(output)
    paths = {artifact.path for artifact in artifacts}
    alike = earlier and earlier.source == source and _has_features(earlier) == model.features
    kept = tuple(
        artifact
        for artifact in (earlier.artifacts if earlier and alike else ())
        if artifact.path not in paths and (output / artifact.path).exists()
    )
    manifest = Manifest(
        source=source,
        model={
            "name": model.name,
            "family": model.family,
            "config": dataclasses.asdict(model.config),
            "features": model.features,
        },
        artifacts=(*kept, *artifacts),
        toolchain=toolchain(),
    )
    manifest.save(scratch)
    return manifest


def superseded_golden(scratch: Path, output: Path) -> list[Path]:
    """Golden vectors in `output` that its manifest names, and the new one in `scratch` does not."""
    earlier, new = find_manifest(output), find_manifest(scratch)
    if earlier is None or new is None:
        return []
    names = {a.golden for a in earlier.artifacts} - {a.golden for a in new.artifacts}
    # A manifest may come from anybody: nothing but golden vectors in the folder itself is removed.
    return [output / name for name in names if re.fullmatch(r"[^/\\]+\.golden-[^/\\]+\.npz", name)]


def _has_features(manifest: Manifest) -> bool:
    return bool(manifest.model.get("features", False))
