"""Writes the smallest piece of an artifact that fails verification as an artifact of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slide_deploy import registry
from slide_deploy.artifacts.golden import save_golden
from slide_deploy.artifacts.prepare import source_of
from slide_deploy.errors import UsageError
from slide_deploy.loading.loader import Model
from slide_deploy.loading.packaging import packaged_as
from slide_deploy.parity.expectation import Expectation, Noise
from slide_deploy.parity.metrics import noise_floor, noise_rms
from slide_deploy.parity.probes import source
from slide_deploy.pipeline.reference import reference_of
from slide_deploy.pipeline.verify import float_artifact
from slide_deploy.protocols import Piece
from slide_deploy.quantization.catalog import scheme_of
from slide_deploy.types import Precision, silent
from slide_deploy.utils.staging import staged_folder
from slide_deploy.verification.folder import listed_artifacts
from slide_deploy.verification.interface import axes_of
from slide_deploy.verification.judge import Progress
from slide_deploy.verification.record import Report
from slide_deploy.verification.recorded import verify_recorded
from slide_deploy.verification.runner import read_artifact, reduce_artifact

__all__ = ["Reduction", "reduce"]

RUNS = 4


@dataclass(frozen=True)
class Reduction:
    """A piece on disk with its golden vectors, and the report of its verification. `operators` are
    those of the piece, of `total` in the artifact; `differing` pieces compute something else."""

    path: Path
    golden: Path
    operators: tuple[str, ...]
    total: int
    differing: int
    report: Report


def reduce(artifact: Path, model: Model, output: Path, *, progress: Progress = silent) -> Reduction:
    """Find the smallest piece of `artifact` that differs from the same piece of a new export.

    The piece and its golden vectors, which are what the new export computes, are written to the
    folder `output`. Raises UsageError for a target or precision that cannot be reduced, and where
    no piece differs.
    """
    listed, *others = listed_artifacts((artifact,))[0]
    if others:
        raise UsageError(f"{artifact} has several artifacts", f"give one, such as {listed.path}")
    artifact = listed.path
    target = registry.recognise(artifact).target
    if registry.runtime(target).reduce is None:
        able = [t for t in registry.target_names() if registry.runtime(t).reduce is not None]
        raise UsageError(
            f"{artifact.name} cannot be reduced", f"artifacts of {', '.join(able)} can"
        )
    progress(f"reading {artifact.name}")
    about = read_artifact(target, artifact, {})
    if scheme_of(about.weight_type, about.compute_type).name != Precision.FLOAT32:
        raise UsageError(
            f"{artifact.name} is no float32 artifact", "debug precision shows where it loses most"
        )
    axes = axes_of(about.inputs, artifact.name)
    model = packaged_as(model, about.metadata)
    expected = reference_of(model, progress).expect(axes, Precision.FLOAT32)
    runs = [dict(e.inputs) for e in expected if source(e.probe) == e.probe][:RUNS]
    with tempfile.TemporaryDirectory(prefix="slide-deploy-") as folder:
        progress(f"exporting {artifact.name} again")
        about_program = (listed.record, None, Path(folder), axes, 0.0, Precision.FLOAT32)
        program = float_artifact(model, None, artifact, *about_program)
        progress(f"reducing {artifact.name}")
        with staged_folder(output) as scratch:
            path = scratch / artifact.name
            piece = reduce_artifact(target, artifact, program, path, runs)
            about_source = (model.name, source_of(model), str(Precision.FLOAT32))
            stem = scratch / f"{artifact.stem}.golden"
            golden = save_golden(tuple(_expectations(piece)), *about_source, stem)
            progress("verifying the piece")
            report = verify_recorded(path, golden=golden)
    return Reduction(
        path=output / path.name,
        golden=output / golden.name,
        operators=piece.operators,
        total=piece.total,
        differing=piece.differing,
        report=report,
    )


def _expectations(piece: Piece) -> Iterator[Expectation]:
    """What the piece must compute: what the new export does, with another order as its noise."""
    pairs = zip(piece.inputs, piece.outputs, piece.rounded, strict=True)
    for number, (inputs, outputs, rounded) in enumerate(pairs, 1):
        noise = {
            name: Noise(noise_floor(rounded[name], value), noise_rms(rounded[name], value))
            for name, value in outputs.items()
        }
        why = "values of the new export on a probe"
        yield Expectation(f"run {number}", why, inputs, outputs, noise)
