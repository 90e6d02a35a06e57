"""Reading labels of a classifier."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slide_deploy.errors import UsageError
from slide_deploy.packaging.labels import read_labels

NAMES = ("tench", "crane", "crane")


def write(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.txt", "tench\n crane\r\ncrane\n\n"),
        ("l.names", "\ufefftench\ncrane\ncrane"),
        ("l.json", ["tench", "crane", "crane"]),
        ("l.json", {"2": "crane", "0": "tench", "1": "crane"}),
        ("l.json", {str(i): [f"n{i:08}", name] for i, name in enumerate(NAMES)}),
    ],
)
def test_labels_are_read_in_the_order_of_the_classes(
    name: str, content: object, tmp_path: Path
) -> None:
    assert read_labels(write(tmp_path, name, content), 3) == NAMES


@given(st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1), min_size=1))
def test_any_names_come_back(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    folder = tmp_path_factory.mktemp("labels")
    expected = tuple(names)
    assert read_labels(write(folder, "l.txt", "\n".join(names)), len(names)) == expected
    keyed = {str(i): name for i, name in enumerate(names)}
    assert read_labels(write(folder, "l.json", keyed), len(names)) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.txt", "tench\ncrane", "2 labels, but the model has 3 classes"),
        ("l.txt", "", "0 labels"),
        ("l.txt", "tench\n\ncrane", "label of class 1 is ''"),
        ("l.json", ["a", "b", 3], "label of class 2 is 3"),
        ("l.json", {"0": "a", "1": "b", "3": "c"}, 'has no label "2"'),
        ("l.json", {"0": "a", "1": "b", "2": ["n1", "c", "d"]}, "label of class 2 is"),
        ("l.json", {"cat": 0, "dog": 1, "cow": 2}, 'has no label "0"'),
        ("l.json", '{"0": "a", "0": "b", "1": "c", "2": "d"}', "'0' is a duplicate"),
        ("l.json", "tench", "not JSON"),
        ("l.json", "3", "contains no labels"),
    ],
)
def test_other_files_are_refused(name: str, content: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        read_labels(write(tmp_path, name, content), 3)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_labels(tmp_path / "l.txt", 3)
