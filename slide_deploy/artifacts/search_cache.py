"""Finished searches, in the user's cache folder: the same one is not made twice.

A damaged file is ignored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs

from slide_deploy.artifacts.manifest import Artifact, toolchain
from slide_deploy.errors import ArtifactError
from slide_deploy.quantization.calibration import CalibrationSet
from slide_deploy.quantization.search import Search
from slide_deploy.types import Options
from slide_deploy.utils.records import read_json, write_json

__all__ = ["load_search", "save_search", "search_file"]


@dataclass(frozen=True)
class Entry:
    """A file of the cache."""

    search: Search
    schema_version: Literal[1] = 1


def search_file(
    program: Artifact,
    calibration: CalibrationSet,
    parts: Sequence[str],
    choices: Mapping[str, Sequence[str]],
    options: Options,
    data: str = "",
) -> Path:
    """The file of a search that starts from the float artifact `program`; `data` is the SHA-256 of
    the labelled images, if these count."""
    goal = (options.min_snr, options.max_drop, data)
    asked = (options.precision, goal, list(parts), dict(choices), dict(options.target_options))
    key = json.dumps([program.sha256, calibration.sha256, asked, toolchain()], sort_keys=True)
    name = hashlib.sha256(key.encode()).hexdigest()[:24]
    folder = Path(platformdirs.user_cache_dir("slide-deploy"), "search")
    return folder / f"{program.target}-{name}.json"


def load_search(path: Path) -> Search | None:
    """The search in a file; None if it was not made yet."""
    try:
        return read_json(Entry, path, 1).search
    except ArtifactError:
        return None


def save_search(path: Path, search: Search) -> None:
    write_json(Entry(search), path)
