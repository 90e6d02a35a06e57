"""Frozen dataclasses to JSON files and back, with one clear error for a file that is not one."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from slide_deploy.errors import ArtifactError
from slide_deploy.utils.files import staged

__all__ = ["read_json", "rebuild", "to_json", "write_json"]

Record = TypeVar("Record")


def to_json(record: Any) -> str:
    """A dataclass as indented JSON; what is not finite becomes null."""
    return json.dumps(_plain(dataclasses.asdict(record)), indent=2, allow_nan=False) + "\n"


def write_json(record: Any, path: Path) -> None:
    """Write a dataclass to `path`, whole or not at all."""
    text = to_json(record)
    with staged(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def read_json(kind: type[Record], path: Path, schema_version: int) -> Record:
    """Read what `write_json` wrote; ArtifactError where the file is another thing."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content["schema_version"]
        if found != schema_version:
            raise ArtifactError(
                f"{path} has schema version {found}, this slide-deploy reads {schema_version}",
                "export again with this version",
            )
        record: Record = rebuild(kind, content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(
            f"{path} cannot be read: {type(error).__name__} {error}"[:300], "export again"
        ) from error
    return record


def rebuild(kind: Any, value: Any) -> Any:
    """JSON values → the dataclasses, tuples and plain values that `kind` names.

    Raises TypeError or KeyError where the value has another form.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        return _rebuild_one_of(arguments, value)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _rebuild_record(kind, value)
    if origin is tuple and isinstance(value, list):
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(rebuild(own, entry) for own, entry in zip(kinds, value, strict=True))
    if origin is Mapping and isinstance(value, Mapping):
        return {key: rebuild(arguments[1], entry) for key, entry in value.items()}
    if kind is float and (value is None or type(value) in (int, float)):
        return math.nan if value is None else float(value)
    if isinstance(kind, type) and type(value) is kind:
        return value
    if isinstance(kind, type) and issubclass(kind, StrEnum) and isinstance(value, str):
        return kind(value)
    raise TypeError(f"expected {kind}, found {value!r}"[:200])


def _rebuild_one_of(kinds: tuple[Any, ...], value: Any) -> Any:
    if value is None and types.NoneType in kinds:
        return None
    for kind in kinds:
        try:
            return rebuild(kind, value)
        except (TypeError, ValueError, KeyError):
            continue
    raise TypeError(f"expected one of {kinds}, found {value!r}"[:200])


def _rebuild_record(kind: type, value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise TypeError(f"expected {kind.__name__}, found {type(value).__name__}")
    hints = typing.get_type_hints(kind)
    if unknown := value.keys() - hints.keys():
        raise TypeError(f"{kind.__name__} has no {', '.join(map(str, sorted(unknown)))}")
    return kind(**{name: rebuild(hints[name], entry) for name, entry in value.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
