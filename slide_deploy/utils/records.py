"""Writes frozen dataclasses to JSON files, and reads them with strict types."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from slide_deploy.errors import ArtifactError
from slide_deploy.utils.staging import staged

__all__ = [
    "Count",
    "Figure",
    "OptionalSha256",
    "Sha256",
    "json_schema",
    "read_json",
    "rebuild",
    "to_json",
    "to_text",
    "write_json",
]

Record = TypeVar("Record")

# pydantic is imported where it is used, because modules that must load fast import this one.
STRICT = {
    "strict": True,
    "extra": "forbid",
    "use_attribute_docstrings": True,
    "json_schema_serialization_defaults_required": True,
}

# JSON has no such numbers. Earlier versions wrote null instead.
NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True)
class _Limit:
    """A constraint of pydantic's core schema."""

    keyword: str
    value: str | int

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        return {**handler(source), self.keyword: self.value}


class _NotFinite:
    """Reads a float from the strings of NOT_FINITE, and NaN from null."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(_figure, handler(source))

    def __get_pydantic_json_schema__(self, core: Any, handler: Callable[[Any], Any]) -> Any:
        return {"anyOf": [handler(core), {"enum": list(NOT_FINITE)}]}


Count = Annotated[int, _Limit("ge", 0)]
Figure = Annotated[float, _NotFinite()]
"""A measured number. In JSON, infinity and NaN are strings."""
Sha256 = Annotated[str, _Limit("pattern", "^[0-9a-f]{64}$")]
OptionalSha256 = Annotated[str, _Limit("pattern", "^([0-9a-f]{64})?$")]


def to_json(record: Any) -> str:
    """A dataclass as indented JSON in UTF-8.

    NaN and infinities become "NaN", "Infinity" and "-Infinity". Characters of file names that UTF-8
    cannot encode become "?". Raises TypeError for a value that is not data.
    """
    text = json.dumps(dataclasses.asdict(record))
    return _encoded(json.loads(text, parse_constant=str), indent=2).decode() + "\n"


def to_text(value: Any) -> str:
    """A dataclass, or plain data, as JSON on one line, as metadata of artifacts hold it."""
    return json.dumps(value, ensure_ascii=False, default=dataclasses.asdict)


def write_json(record: Any, path: Path) -> None:
    """Write a dataclass to `path`, atomically."""
    text = to_json(record)
    with staged(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def read_json(kind: type[Record], path: Path, schema_version: int) -> Record:
    """Read a file of `write_json`; ArtifactError if the content is not valid."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content["schema_version"]
        if (type(found), found) != (int, schema_version):  # True equals 1
            raise ArtifactError(
                f"{path} has schema version {found}; this slide-deploy reads {schema_version}",
                "export again with this version",
            )
        return rebuild(kind, content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(
            f"{path} cannot be read: {type(error).__name__} {error}"[:300], "export again"
        ) from error


def rebuild(kind: type[Record], value: Any) -> Record:
    """Convert decoded JSON to the dataclass `kind`.

    Raises ValueError, with the name of the field, for unknown keys and for values of another type:
    "3" and true are not integers.
    """
    from pydantic import ValidationError

    try:
        (record,) = _adapter(kind).validate_json(_encoded([value]))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"][1:]))
        raise ValueError(f"{field}: {first['msg']}" if field else first["msg"]) from None
    built: Record = record
    return built


def json_schema(kind: type, name: str, title: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what `to_json` writes for the dataclass `kind`."""
    from pydantic.json_schema import GenerateJsonSchema

    class Untitled(GenerateJsonSchema):
        def field_title_should_be_set(self, schema: Any) -> bool:
            return False  # a title would repeat the field's name

    definitions = _adapter(kind).json_schema(mode="serialization", schema_generator=Untitled)[
        "$defs"
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:slide-deploy:{name}:1",
        **definitions.pop(kind.__name__),
        "title": title,
        "$defs": definitions,
    }


def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    # In a tuple, because pydantic does not accept a configuration for a dataclass.
    return TypeAdapter(tuple[kind], config=STRICT)  # type: ignore[arg-type]


def _encoded(value: Any, indent: int | None = None) -> bytes:
    return json.dumps(value, indent=indent, ensure_ascii=False).encode("utf-8", "replace")


def _figure(value: Any) -> Any:
    if value is None:
        return math.nan
    return NOT_FINITE.get(value, value) if isinstance(value, str) else value
