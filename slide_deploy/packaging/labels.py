"""Names of a classifier's classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slide_deploy.errors import UsageError
from slide_deploy.packaging.json_file import parse_json, read_text

__all__ = ["read_labels"]


def read_labels(path: Path, classes: int) -> tuple[str, ...]:
    """The names of `classes` classes, in the order of the model's outputs.

    A `.json` file holds a list of names, or an object {"0": name, "1": name, …}, where a name may
    also be [WordNet id, name], as in imagenet_class_index.json. Any other file is text with one
    name per line. Names may repeat, as in ImageNet. Raises UsageError if a name is missing or
    empty, or their number is not `classes`.
    """
    if path.suffix.lower() == ".json":
        names = _of_json(path, parse_json(path, "labels"))
    else:
        names = [line.strip() for line in read_text(path, "labels").rstrip().splitlines()]
    if len(names) != classes:
        raise UsageError(
            f"{path} has {len(names)} labels, but the model has {classes} classes",
            "write one label for each class, in the order of the model's outputs",
        )
    for index, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise UsageError(
                f"{path}: the label of class {index} is {name!r:.60}", "name the class"
            )
    return tuple(names)


def _of_json(path: Path, content: Any) -> list[Any]:
    if isinstance(content, list):
        return content
    if isinstance(content, dict):
        keys = [str(index) for index in range(len(content))]
        if missing := [key for key in keys if key not in content]:
            raise UsageError(
                f'{path} has no label "{missing[0]}"',
                f'its keys are expected to be "0" to "{len(keys) - 1}"',
            )
        return [_second(content[key]) for key in keys]
    raise UsageError(f"{path} contains no labels", 'write a list, or an object {"0": "cat", …}')


def _second(entry: Any) -> Any:
    return entry[1] if isinstance(entry, list) and len(entry) == 2 else entry
