"""Compares artifacts that were made again with the earlier ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from slide_deploy.artifacts.golden import load_golden
from slide_deploy.artifacts.manifest import Artifact, Manifest
from slide_deploy.errors import SlideDeployError
from slide_deploy.utils.hashing import sha256_of
from slide_deploy.verification.replay import Likeness, ReplayedArtifact
from slide_deploy.verification.runner import read_artifact

__all__ = ["compared_artifacts", "largest_difference"]

Outputs = Mapping[str, Mapping[str, np.ndarray]]


def compared_artifacts(
    before: Path, earlier: Manifest, now: Path, new: Manifest | None
) -> tuple[ReplayedArtifact, ...]:
    """Each artifact of the manifest `earlier`, in the folder `before`, beside the new one in `now`.

    Where the bytes differ, both run on the golden vectors of the new one, and their outputs are
    compared bit by bit.
    """
    made = {old.path: new.entry(Path(old.path)) if new else None for old in earlier.artifacts}
    return tuple(_compared(before, old, now, made[old.path]) for old in earlier.artifacts)


def _compared(before: Path, old: Artifact, now: Path, made: Artifact | None) -> ReplayedArtifact:
    found = ReplayedArtifact(old.target, old.path, Likeness.NOT_MADE, old.sha256, "")
    if made is None:
        return found
    found = replace(found, likeness=Likeness.SAME_BYTES, now=made.sha256)
    if made.sha256 == old.sha256:
        return found
    found = replace(found, likeness=Likeness.NOT_COMPARED)
    one, other = before / old.path, now / made.path
    if not one.exists():
        return replace(found, reason="the earlier artifact is not beside its manifest")
    if sha256_of(one) != old.sha256:
        return replace(found, reason="the earlier artifact has changed since its manifest")
    found = replace(found, files=_other_files(one, other))
    try:
        golden = load_golden(now / made.golden).expectations
        feeds = {expected.probe: dict(expected.inputs) for expected in golden}
        first, second = (read_artifact(old.target, path, feeds).outputs for path in (one, other))
    except SlideDeployError as error:
        return replace(found, reason=error.message)
    difference = largest_difference(first, second)
    likeness = Likeness.SAME_NUMBERS if difference == 0 else Likeness.OTHER_NUMBERS
    return replace(found, likeness=likeness, max_abs_difference=difference)


def largest_difference(before: Outputs, now: Outputs) -> float:
    """The largest absolute difference of any value; 0 only where all are the same, infinity where
    outputs are missing, have other shapes, or only one of two values is not a number."""
    found = 0.0
    for probe in {**before, **now}:
        one, other = before.get(probe, {}), now.get(probe, {})
        if one.keys() != other.keys():
            return float("inf")
        for name, values in one.items():
            found = max(found, _difference(values, other[name]))
    return found


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    if one.shape != other.shape or one.dtype != other.dtype:
        return float("inf")
    wide, narrow = one.astype(np.float64), other.astype(np.float64)
    if not np.array_equal(np.isfinite(wide), np.isfinite(narrow)):
        return float("inf")
    finite = np.isfinite(wide)
    if not np.array_equal(wide[~finite], narrow[~finite], equal_nan=True):
        return float("inf")
    return float(np.abs(wide[finite] - narrow[finite]).max(initial=0.0))


def _other_files(one: Path, other: Path) -> tuple[str, ...]:
    """The files of two folders whose content differs."""
    if one.is_file() or other.is_file():
        return ()
    before, now = (
        {
            part.relative_to(root).as_posix(): sha256_of(part)
            for part in root.rglob("*")
            if part.is_file()
        }
        for root in (one, other)
    )
    return tuple(name for name in sorted({**before, **now}) if before.get(name) != now.get(name))
