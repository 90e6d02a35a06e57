"""Verification from the manifest's hashes and golden vectors, without the checkpoint.

It needs torch only for targets whose runtime is torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from slide_deploy.artifacts.golden import GoldenVectors, load_golden
from slide_deploy.artifacts.manifest import FILE_NAME, Artifact, Manifest, SourceRecord
from slide_deploy.errors import ArtifactError, CheckpointError
from slide_deploy.types import silent
from slide_deploy.utils.hashing import sha256_of
from slide_deploy.verification.check import check_artifact
from slide_deploy.verification.folder import existing, listed_artifacts, record_problems
from slide_deploy.verification.judge import Progress, Reference, VerificationPolicy
from slide_deploy.verification.outcome import report_of
from slide_deploy.verification.record import Report

__all__ = ["verify_recorded"]

CALIBRATED = VerificationPolicy()
REFERENCE = "recorded float64 reference (golden vectors beside the artifacts)"
UNKNOWN = SourceRecord("unknown", "", "unknown")

# An artifact, what it is compared with, its manifest entry, and problems that are already known.
Task = tuple[Path, Reference, Artifact | None, tuple[str, ...]]


def verify_recorded(
    paths: Path | str | Sequence[Path | str],
    policy: VerificationPolicy = CALIBRATED,
    progress: Progress = silent,
    command: str = "",
    *,
    golden: Path | str | None = None,
    manifest_sha256: str = "",
) -> Report:
    """Verify artifacts, or all artifacts of an output folder, with the golden vectors beside them.

    With `golden`, a file of golden vectors, artifacts are compared with that alone, as for a file
    that another tool has optimised: no manifest is read. With `manifest_sha256`, the manifest must
    have this hash, 64 hexadecimal digits. Raises CheckpointError where there is nothing to verify,
    and ArtifactError where manifest or golden vectors are missing, unreadable or not those asked
    for.
    """
    places = [Path(path) for path in ([paths] if isinstance(paths, (str, Path)) else paths)]
    if golden is not None:
        tasks, notes = _tasks_by_hand(places, Path(golden))
    else:
        tasks, notes = _tasks_of_manifests(places, manifest_sha256.lower())
    checks = tuple(
        check_artifact(path, reference, record, policy, progress, known)
        for path, reference, record, known in tasks
    )
    return report_of(tasks[0][1], checks, command, notes)


def _tasks_by_hand(places: list[Path], path: Path) -> tuple[list[Task], tuple[str, ...]]:
    golden = load_golden(path)
    reference = Reference(
        name=golden.model,
        source=golden.source or UNKNOWN,
        reference=f"golden vectors in {path.name}, given by hand (no manifest was compared)",
        specs=lambda axes: (golden.inputs, golden.outputs),
        expect=lambda axes, precision: golden.expectations,
        precision=golden.precision,
    )
    notes = () if golden.source else (_old_form(path),)
    return [(existing(place), reference, None, ()) for place in places], notes


def _tasks_of_manifests(
    places: list[Path], manifest_sha256: str
) -> tuple[list[Task], tuple[str, ...]]:
    found, listing_notes = listed_artifacts(places)
    notes = dict.fromkeys(listing_notes)
    load = cache(load_golden)
    tasks: list[Task] = []
    for listed in found:
        path, manifest, record = listed.path, listed.manifest, listed.record
        if manifest is None or record is None:
            raise CheckpointError(
                f"{path} has no record in a {FILE_NAME} beside it",
                "pass --against model.pth or --golden NAME.npz, or verify the folder that export "
                "wrote",
            )
        if manifest_sha256 and (have := sha256_of(path.with_name(FILE_NAME))) != manifest_sha256:
            raise ArtifactError(
                f"{path.with_name(FILE_NAME)} has SHA-256 {have}, not the one given",
                "get the folder again from where the hash came from",
            )
        file = _golden_file(path.parent, record)
        golden = load(file)
        if golden.source is None:
            notes[_old_form(file)] = None
        known = (*record_problems(path, record), *_golden_problems(file, golden, manifest, record))
        tasks.append((path, _reference(manifest, record, golden), record, known))
    return tasks, tuple(notes)


def _golden_file(folder: Path, record: Artifact) -> Path:
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
    return golden


def _golden_problems(
    file: Path, golden: GoldenVectors, manifest: Manifest, record: Artifact
) -> list[str]:
    problems = []
    if golden.source and not golden.source.same_weights(manifest.source):
        problems.append(
            f"golden vectors {file.name} are of {golden.source}, the manifest of {manifest.source}"
        )
    if golden.precision != record.precision:
        problems.append(
            f"golden vectors {file.name} are of {golden.precision}, "
            f"the manifest says {record.precision}"
        )
    return problems


def _reference(manifest: Manifest, record: Artifact, golden: GoldenVectors) -> Reference:
    return Reference(
        name=str(manifest.model.get("name", "model")),
        source=manifest.source,
        reference=REFERENCE,
        specs=lambda axes: (record.inputs, record.outputs),
        expect=lambda axes, precision: golden.expectations,
        labels=record.labels,
    )


def _old_form(path: Path) -> str:
    return (
        f"golden vectors {path.name} were written by an earlier version: they name no source, "
        "and have no digest of their content"
    )
