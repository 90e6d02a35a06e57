"""Conversion of records to JSON and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slide_deploy.errors import ArtifactError
from slide_deploy.types import Precision, TensorSpec
from slide_deploy.utils.records import (
    Count,
    Figure,
    Sha256,
    read_json,
    rebuild,
    to_json,
    write_json,
)


@dataclass(frozen=True)
class Record:
    """One field of every kind that our files have."""

    name: str
    count: int
    ratio: Figure
    precision: Precision
    inputs: tuple[TensorSpec, ...]
    note: str | None = None
    error: Figure | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = 1


@dataclass(frozen=True)
class Hashed:
    """Fields with constraints."""

    sha256: Sha256
    count: Count


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
specs = st.builds(
    TensorSpec,
    name=st.text(max_size=5),
    shape=st.lists(st.integers() | st.text(max_size=3), max_size=4).map(tuple),
    dtype=st.sampled_from(["float32", "float16"]),
)
finite = st.floats(allow_nan=False, allow_infinity=False)
records = st.builds(
    Record,
    name=st.text(),
    count=st.integers(),
    ratio=finite,
    precision=st.sampled_from(Precision),
    inputs=st.lists(specs, max_size=3).map(tuple),
    note=st.none() | st.text(),
    error=st.none() | finite,
    facts=st.dictionaries(st.text(max_size=3), plain, max_size=3),
)


@settings(max_examples=15)
@given(record=records)
def test_a_record_comes_back_as_it_went(record: Record) -> None:
    assert rebuild(Record, json.loads(to_json(record))) == record


def some(**changes: Any) -> Record:
    return replace(
        Record("x", 1, 0.5, Precision.FLOAT32, (TensorSpec("i", (1, "batch")),)), **changes
    )


@dataclass(frozen=True)
class Optional:
    """A record whose mapping may be missing, as a check's operators."""

    counts: Mapping[str, int] | None = None


@pytest.mark.parametrize(
    "counts",
    [
        None,
        {"Add": 3},
    ],
)
def test_an_optional_mapping_comes_back_as_it_went(counts: Mapping[str, int] | None) -> None:
    assert rebuild(Optional, json.loads(to_json(Optional(counts)))) == Optional(counts)


def test_a_file_comes_back_as_it_went(tmp_path: Path) -> None:
    write_json(some(), tmp_path / "record.json")
    assert read_json(Record, tmp_path / "record.json", 1) == some()


NOT_FINITE = [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")]


@pytest.mark.parametrize(("value", "name"), NOT_FINITE)
def test_what_is_no_number_in_json_is_written_by_name(value: float, name: str) -> None:
    written = json.loads(to_json(some(ratio=value, facts={"x": [value]})))
    assert (written["ratio"], written["facts"]) == (name, {"x": [name]})


@pytest.mark.parametrize(("value", "name"), NOT_FINITE)
def test_a_figure_that_is_not_finite_comes_back(value: float, name: str) -> None:
    back = rebuild(Record, json.loads(to_json(some(ratio=value, error=value))))
    assert [repr(back.ratio), repr(back.error)] == [repr(value)] * 2


def test_null_is_read_as_earlier_versions_meant_it() -> None:
    back = rebuild(Record, {**json.loads(to_json(some())), "ratio": None, "error": None})
    assert math.isnan(back.ratio)
    assert back.error is None


@pytest.mark.parametrize("text", ["\udcff", "a\ud800b"])
def test_text_that_is_not_utf8_is_written_as_question_marks(text: str) -> None:
    back = rebuild(Record, json.loads(to_json(some(name=text))))
    assert back.name == text.encode("utf-8", "replace").decode()


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "G" * 64, "0" * 64 + "\n"])
def test_what_is_not_a_sha256_is_refused(text: str) -> None:
    assert rebuild(Hashed, {"sha256": "0" * 64, "count": 0}) == Hashed("0" * 64, 0)
    with pytest.raises(ValueError, match="sha256"):
        rebuild(Hashed, {"sha256": text, "count": 0})


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match="count"):
        rebuild(Hashed, {"sha256": "0" * 64, "count": -1})


def test_an_earlier_file_survives_a_record_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_json(some(), path)
    with pytest.raises(TypeError):
        write_json(some(facts={"x": object()}), path)
    assert read_json(Record, path, 1) == some()


@pytest.mark.parametrize(
    "change",
    [
        {"count": "1"},
        {"count": 1.5},
        {"count": True},
        {"name": None},
        {"name": 3},
        {"ratio": "0.5"},
        {"ratio": "nan"},
        {"ratio": "inf"},
        {"ratio": True},
        {"ratio": []},
        {"ratio": 10**400},
        {"error": "NaN "},
        {"error": False},
        {"note": 1},
        {"precision": "float7"},
        {"inputs": {}},
        {"inputs": [1]},
        {"inputs": "ab"},
        {"inputs": [{"name": "x"}]},
        {"inputs": [{"name": "x", "shape": [1], "other": 1}]},
        {"inputs": [{"name": "x", "shape": [True]}]},
        {"inputs": [{"name": "x", "shape": [1.5]}]},
        {"inputs": [{"name": "x", "shape": "ab"}]},
        {"facts": []},
        {"unknown": 1},
        {"schema_version": 2},
        {"schema_version": True},
        {"schema_version": "1"},
    ],
    ids=str,
)
def test_another_form_is_an_artifact_error(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps({**json.loads(to_json(some())), **change}))
    with pytest.raises(ArtifactError, match=r"record\.json"):
        read_json(Record, path, 1)


@pytest.mark.parametrize("key", ["name", "count", "inputs", "schema_version"])
def test_a_missing_field_is_an_artifact_error(tmp_path: Path, key: str) -> None:
    path = tmp_path / "record.json"
    content = json.loads(to_json(some()))
    del content[key]
    path.write_text(json.dumps(content))
    if key == "schema_version":
        with pytest.raises(ArtifactError, match="schema_version"):
            read_json(Record, path, 1)
        return
    with pytest.raises(ArtifactError, match=key):
        read_json(Record, path, 1)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"1",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"schema_version": ' + b"9" * 5000,
    ],
    ids=str,
)
def test_what_is_no_record_is_an_artifact_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"record\.json"):
        read_json(Record, path, 1)


def test_a_version_of_later_says_so(tmp_path: Path) -> None:
    write_json(some(schema_version=9), tmp_path / "record.json")
    with pytest.raises(ArtifactError, match="schema version 9"):
        read_json(Record, tmp_path / "record.json", 1)
