"""Verification without the source model: hashes and golden vectors, as export wrote them.

Needs neither the checkpoint nor torch, for targets whose runtime does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from slide_deploy.artifacts.manifest import FILE_NAME, Artifact, Manifest, find_manifest, toolchain
from slide_deploy.errors import ArtifactError, CheckpointError
from slide_deploy.parity.expectation import load_expectations
from slide_deploy.types import silent
from slide_deploy.utils.hashing import sha256_of
from slide_deploy.verification.check import check_artifact
from slide_deploy.verification.judge import Progress, Reference, VerificationPolicy
from slide_deploy.verification.record import Check, Report, now, overall

__all__ = ["record_problems", "verify_recorded"]

CALIBRATED = VerificationPolicy()
REFERENCE = "recorded float64 reference (golden vectors beside the artifacts)"


def verify_recorded(
    paths: Path | str | Sequence[Path | str],
    policy: VerificationPolicy = CALIBRATED,
    progress: Progress = silent,
    command: str = "",
) -> Report:
    """Verify artifacts, or every artifact of an output folder, by what lies beside them.

    Raises CheckpointError where there is nothing to verify, and ArtifactError where manifest
    or golden vectors are missing or unreadable.
    """
    given = [paths] if isinstance(paths, (str, Path)) else paths
    artifacts = [found for path in given for found in _artifacts(Path(path))]
    checks: list[Check] = []
    for path, manifest, record in artifacts:
        reference = _reference(path.parent, manifest, record)
        known = tuple(record_problems(path, record))
        checks.append(check_artifact(path, reference, record, policy, progress, known))
    manifest = artifacts[0][1]
    return Report(
        verdict=overall(tuple(checks)),
        source=manifest.source,
        model=str(manifest.model.get("name", "model")),
        reference=REFERENCE,
        checks=tuple(checks),
        command=command,
        toolchain=toolchain(),
        date=now(),
    )


def record_problems(path: Path, record: Artifact) -> list[str]:
    """Whether a file is still the one that was exported."""
    if sha256_of(path) == record.sha256:
        return []
    return [f"{path.name} has changed since it was exported (SHA-256 differs from the manifest)"]


def _artifacts(path: Path) -> list[tuple[Path, Manifest, Artifact]]:
    if not path.exists():
        raise CheckpointError(f"{path} does not exist", "check the path")
    if path.is_dir() and (manifest := find_manifest(path)):
        if not manifest.artifacts:
            raise ArtifactError(f"{path / FILE_NAME} lists no artifacts", "export again")
        for record in manifest.artifacts:
            if not (path / record.path).exists():
                raise ArtifactError(
                    f"{record.path} is in the manifest but not in {path}", "export again"
                )
        return [(path / record.path, manifest, record) for record in manifest.artifacts]
    manifest = find_manifest(path.parent)
    entry = manifest.entry(path) if manifest else None
    if manifest is None or entry is None:
        raise CheckpointError(
            f"{path} has no record in a {FILE_NAME} beside it",
            "pass --against model.pth, or verify the folder that export wrote",
        )
    return [(path, manifest, entry)]


def _reference(folder: Path, manifest: Manifest, record: Artifact) -> Reference:
    golden = folder / record.golden
    if not golden.is_file():
        raise ArtifactError(
            f"golden vectors {golden} are missing", "pass --against model.pth, or export again"
        )
    if sha256_of(golden) != record.golden_sha256:
        raise ArtifactError(
            f"golden vectors {golden} have changed since the export (SHA-256 differs)",
            "pass --against model.pth, or export again",
        )
    expectations = load_expectations(golden)
    return Reference(
        name=str(manifest.model.get("name", "model")),
        source=manifest.source,
        reference=REFERENCE,
        specs=lambda axes: (record.inputs, record.outputs),
        expect=lambda axes, precision: expectations,
    )
