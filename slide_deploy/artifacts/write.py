"""Write artifacts into a folder, with the manifest and golden vectors that describe them."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from slide_deploy import __version__, registry
from slide_deploy.artifacts.manifest import (
    Artifact,
    Manifest,
    SourceRecord,
    find_manifest,
    toolchain,
)
from slide_deploy.artifacts.tuning_cache import load_tuning
from slide_deploy.capture import Capture
from slide_deploy.errors import ConversionError, SlideDeployError
from slide_deploy.loading.dynamic_size import dynamic_size_of
from slide_deploy.loading.loader import Model
from slide_deploy.lowering.selection import check_name, lower_for
from slide_deploy.models.families import simplified
from slide_deploy.parity.expectation import Expectation, save_expectations
from slide_deploy.protocols import Exporter
from slide_deploy.types import LayerLowering, Options, TensorSpec, dynamic_axes_of, with_batch
from slide_deploy.utils.files import remove, size_of
from slide_deploy.utils.hashing import sha256_of
from slide_deploy.utils.quiet import quiet

__all__ = [
    "PreparedModel",
    "preparer",
    "require",
    "save_golden",
    "save_manifest",
    "source_of",
    "write_artifact",
]

DISK_IS_FULL = 4096  # bytes left: less than a block


@dataclass(frozen=True)
class PreparedModel:
    """A model in the forms that suit one target, ready to export, and what each layer got."""

    capture: Capture
    lowering: tuple[LayerLowering, ...]


def preparer(model: Model, options: Options) -> Callable[[str], PreparedModel]:
    """A function from a target to the model's deployed form for it.

    The model is fused once, and captured once for all targets that take the same forms.
    Raises UnknownName or ImpossibleLowering where `options.lowering` cannot be had, UsageError
    where a size cannot be left free.
    """
    check_name(options.lowering)
    batch = options.extent.batch
    free = dynamic_size_of(model) if options.dynamic_size else None
    inputs = tuple(with_batch(spec, batch) for spec in (free or model).inputs)
    outputs = tuple(with_batch(spec, batch) for spec in (free or model).outputs)
    fused = simplified(model.merged)
    metadata = _metadata(model, inputs, options)
    captures: dict[tuple[str, ...], Capture] = {}

    def deploy(target: str) -> PreparedModel:
        tuned = load_tuning(fused, model.inputs, target, options)
        module, layers = lower_for(
            fused, model.inputs, options.lowering, target, tuned, any_size=free is not None
        )
        forms = tuple(layer.form for layer in layers)
        if forms not in captures:
            sizes = free.steps if free else {}
            capture = Capture(module, inputs, outputs, metadata, sizes)
            captures[forms] = replace(capture, module=model.finish(capture))
        return PreparedModel(captures[forms], layers)

    return deploy


def require(exporter: Exporter) -> None:
    """Raise MissingLibrary unless everything the exporter needs is installed."""
    registry.require(f"export to {exporter.title}", exporter.packages, exporter.extra)


def write_artifact(
    exporter: Exporter, name: str, capture: Capture, folder: Path, options: Options
) -> Artifact:
    """Write one artifact into `folder`; ConversionError, and nothing left, where that fails."""
    path = folder / exporter.file_name(name)
    try:
        with quiet():
            exporter.write(capture, path, options)
        _refuse_full_disk(folder)  # some converters do not notice
    except Exception as error:  # whatever a converter throws
        _refuse_full_disk(folder)
        remove(path)
        if isinstance(error, (SlideDeployError, OSError)):
            raise
        first = (str(error).strip().splitlines() or [""])[0]
        raise ConversionError(
            f"{exporter.title} conversion failed: {type(error).__name__}: {first[:200]}",
            "--debug shows the converter's own traceback",
        ) from error
    return Artifact(
        target=exporter.target,
        path=path.name,
        precision=options.precision,
        sha256=sha256_of(path),
        size_bytes=size_of(path),
        inputs=capture.inputs,
        outputs=capture.outputs,
    )


def _refuse_full_disk(folder: Path) -> None:
    if shutil.disk_usage(folder).free < DISK_IS_FULL:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def save_golden(
    artifacts: tuple[Artifact, ...], expectations: tuple[Expectation, ...], folder: Path, name: str
) -> tuple[Artifact, ...]:
    """Write the golden vectors that artifacts of one extent and precision share."""
    first = artifacts[0]
    size = "any-size-" if dynamic_axes_of(first.inputs).any_size else ""
    path = folder / f"{name}.golden-{first.inputs[0].shape[0]}-{size}{first.precision}.npz"
    save_expectations(expectations, path)
    digest = sha256_of(path)
    return tuple(replace(a, golden=path.name, golden_sha256=digest) for a in artifacts)


def save_manifest(
    model: Model, artifacts: tuple[Artifact, ...], scratch: Path, output: Path
) -> Manifest:
    """Write the manifest to `scratch`; what `output` has of the same weights and outputs stays
    listed."""
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


def _has_features(manifest: Manifest) -> bool:
    return bool(manifest.model.get("features", False))


def source_of(model: Model) -> SourceRecord:
    """The model's source as manifests and reports record it."""
    return SourceRecord(**dataclasses.asdict(model.source))


def _metadata(model: Model, inputs: tuple[TensorSpec, ...], options: Options) -> dict[str, str]:
    described = ", ".join(
        f"{spec.name}: {'x'.join(map(str, spec.shape))} {spec.dtype}" for spec in inputs
    )
    return {
        "model": model.name,
        "family": model.family,
        "description": f"{model.name} ({model.family}), exported by slide-deploy {__version__}",
        "source": model.source.path_name,
        "source_sha256": model.source.sha256,
        "weights": model.source.weights,
        "input": f"{described}, normalised as in training",
        "precision": options.precision,
        "slide_deploy": __version__,
    }
