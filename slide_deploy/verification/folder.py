"""Find the artifacts to verify, and what the manifest beside them records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from slide_deploy import registry
from slide_deploy.artifacts.manifest import FILE_NAME, Artifact, Manifest, find_manifest
from slide_deploy.errors import ArtifactError, CheckpointError, UsageError
from slide_deploy.utils.hashing import sha256_of

__all__ = ["Listed", "existing", "listed_artifacts", "record_problems"]


@dataclass(frozen=True)
class Listed:
    """An artifact on disk, the manifest beside it and its entry there, if there are any."""

    path: Path
    manifest: Manifest | None
    record: Artifact | None


def existing(path: Path) -> Path:
    """The path itself; CheckpointError where nothing is there."""
    if not path.exists():
        raise CheckpointError(f"{path} does not exist", "check the path")
    return path


def listed_artifacts(places: Sequence[Path]) -> tuple[tuple[Listed, ...], tuple[str, ...]]:
    """The artifacts at `places`; a folder with a manifest stands for all that it lists and holds.

    Also notes on artifacts that such a folder lists and lacks, or holds and does not list. Raises
    CheckpointError for a path that does not exist, ArtifactError for a folder that has none of the
    artifacts of its manifest, and for a manifest that cannot be read.
    """
    found: list[Listed] = []
    notes: list[str] = []
    for place in map(existing, places):
        if place.is_dir() and (manifest := find_manifest(place)):
            found += _held(place, manifest)
            notes += _notes(place, manifest)
        else:
            manifest = find_manifest(place.parent)
            found.append(Listed(place, manifest, manifest.entry(place) if manifest else None))
    return tuple(found), tuple(notes)


def record_problems(path: Path, record: Artifact) -> list[str]:
    """Whether a file is still the one that was exported."""
    if sha256_of(path) == record.sha256:
        return []
    return [f"{path.name} has changed since it was exported (SHA-256 differs from the manifest)"]


def _held(folder: Path, manifest: Manifest) -> list[Listed]:
    if not manifest.artifacts:
        raise ArtifactError(f"{folder / FILE_NAME} lists no artifacts", "export again")
    held = [record for record in manifest.artifacts if (folder / record.path).exists()]
    if not held:
        raise ArtifactError(
            f"{folder} has none of the artifacts that its {FILE_NAME} lists", "export again"
        )
    return [Listed(folder / record.path, manifest, record) for record in held]


def _notes(folder: Path, manifest: Manifest) -> Iterator[str]:
    for record in manifest.artifacts:
        if not (folder / record.path).exists():
            yield f"{record.path} is in the manifest but not in {folder}: it was not verified"
    listed = {record.path for record in manifest.artifacts}
    for path in sorted(folder.iterdir()):
        if path.name not in listed and not path.name.startswith(".") and _is_artifact(path):
            yield f"{path.name} is in {folder} but not in its manifest: it was not verified"


def _is_artifact(path: Path) -> bool:
    with suppress(UsageError):
        return bool(registry.recognise(path))
    return False
