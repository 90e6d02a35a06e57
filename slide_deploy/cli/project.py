"""`slide-deploy.toml`: the settings of a project, which the options of a command override."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from slide_deploy.errors import UnknownName, UsageError
from slide_deploy.packaging.json_file import read_text
from slide_deploy.utils.records import rebuild

__all__ = ["FILE_NAME", "Gates", "Project", "read_project"]

FILE_NAME = "slide-deploy.toml"

HINT = "docs/project-file.md describes the file"


@dataclass(frozen=True)
class Gates:
    """The table [gates]: limits, and what artifacts are verified with."""

    atol: float | None = None
    rtol: float | None = None
    max_drop: float | None = None
    thorough: bool | None = None
    baseline: str | None = None
    images: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Project:
    """A field for each key of the file, with _ for -; None where the file does not have it.

    `target` has the settings of single targets: `precision`, and options that only they have.
    """

    model: str | None = None
    output: str | None = None
    targets: tuple[str, ...] | None = None
    profile: str | None = None
    precision: str | None = None
    calibration: str | None = None
    min_snr: float | None = None
    smooth: float | None = None
    data: str | None = None
    lowering: str | None = None
    preprocess: str | None = None
    labels: str | None = None
    classifier: bool | None = None
    keep_logits: bool | None = None
    weights: str | None = None
    prefix: str | None = None
    key: str | None = None
    image_size: int | str | None = None
    features: bool | None = None
    batch: int | None = None
    dynamic: bool | None = None
    dynamic_size: bool | None = None
    gates: Gates = field(default_factory=Gates)
    target: Mapping[str, Mapping[str, str | int | float | bool]] = field(default_factory=dict)


def read_project(path: Path) -> Project:
    """Read the file; UsageError, one line, for a key that does not exist or a value of another
    type."""
    try:
        content = tomllib.loads(read_text(path, "project"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error}"[:200], "correct the file") from error
    gates = content.get("gates", {})
    if not isinstance(gates, dict):
        raise UsageError(f"{path}: gates is no table", f"write [gates]; {HINT}")
    named = _named(path, "key", content, Project)
    try:
        return rebuild(Project, {**named, "gates": _named(path, "gate", gates, Gates)})
    except ValueError as error:
        raise UsageError(f"{path}: {_sentence(error)}"[:200], HINT) from error
    except TypeError as error:  # JSON has no dates
        raise UsageError(f"{path} has a date or a time, which no setting is", HINT) from error


def _named(path: Path, kind: str, content: Mapping[str, Any], record: type) -> dict[str, Any]:
    """The content by names of fields."""
    known = _keys(field.name for field in fields(record))
    for key in content:
        if key not in known:
            error = UnknownName(kind, key, known)
            raise UsageError(f"{path}: {error.message}", error.hint)
    return {known[key]: value for key, value in content.items()}


def _keys(names: Iterable[str]) -> dict[str, str]:
    return {name.replace("_", "-"): name for name in names}


def _sentence(error: Exception) -> str:
    """The message with the key as it is written, without the type of a union that was tried."""
    name, colon, rest = str(error).partition(": ")
    name = re.sub(r"\.(int|str|float|bool)$", "", name)
    return f"{name.replace('_', '-')}: {rest[:1].lower()}{rest[1:]}" if colon else str(error)
