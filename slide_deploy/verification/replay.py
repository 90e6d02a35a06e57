"""How artifacts that were made again from a manifest compare with the earlier ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from slide_deploy.utils.records import Figure, OptionalSha256, Sha256

__all__ = ["Likeness", "Replay", "ReplayedArtifact", "VersionChange", "version_changes"]


class Likeness(StrEnum):
    """What the artifact that was made again has in common with the earlier one."""

    SAME_BYTES = "same bytes"
    SAME_NUMBERS = "same numbers, other bytes"
    OTHER_NUMBERS = "other numbers"
    NOT_COMPARED = "other bytes, numbers not compared"
    NOT_MADE = "not made"


@dataclass(frozen=True)
class ReplayedArtifact:
    """`before` and `now` are SHA-256; `files` those of a folder that differ. The largest difference
    of an output from that of the earlier artifact, on the golden vectors, is
    `max_abs_difference`; `reason` says why numbers were not compared."""

    target: str
    path: str
    likeness: Likeness
    before: Sha256
    now: OptionalSha256
    files: tuple[str, ...] = ()
    max_abs_difference: Figure | None = None
    reason: str = ""


@dataclass(frozen=True)
class VersionChange:
    """Versions of a package, empty where it was not, or is not, installed."""

    package: str
    before: str
    now: str


@dataclass(frozen=True)
class Replay:
    """The comparison with the earlier export whose manifest has the hash `manifest_sha256`."""

    manifest_sha256: Sha256
    artifacts: tuple[ReplayedArtifact, ...]
    versions: tuple[VersionChange, ...]


def version_changes(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[VersionChange, ...]:
    """The packages whose versions differ between two toolchains."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return tuple(VersionChange(n, before.get(n, ""), now.get(n, "")) for n in names)
