"""Opens a `.mlpackage` folder: its manifest, and the files that it lists."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from slide_deploy.errors import ArtifactError

__all__ = ["Package", "file_of", "open_package"]

_MODEL_PATH = "@model_path/"


@dataclass(frozen=True)
class Package:
    """The path of the model, and every file or folder in the manifest."""

    root: Path
    model: Path
    items: tuple[Path, ...]


def open_package(path: Path) -> Package:
    """Read `Manifest.json`; paths outside the package are refused."""
    manifest = _manifest(path)
    entries = manifest.get("itemInfoEntries")
    root = manifest.get("rootModelIdentifier")
    if not isinstance(entries, dict) or not isinstance(root, str) or root not in entries:
        raise ArtifactError(f"{path.name}/Manifest.json names no root model")
    items = {key: _item(path, entry) for key, entry in entries.items()}
    if not items[root].is_file():
        raise ArtifactError(f"{path.name}: the root model {items[root].name} is not a file")
    return Package(path, items[root], tuple(items.values()))


def file_of(package: Package, name: str) -> Path:
    """The file that a program names `@model_path/...`, which must be in the manifest."""
    if not name.startswith(_MODEL_PATH):
        raise ArtifactError(f"{package.root.name}: weight file {name!r} is not under @model_path")
    path = _inside(package.root, package.model.parent, name.removeprefix(_MODEL_PATH))
    if not any(path == item or item in path.parents for item in package.items):
        raise ArtifactError(f"{package.root.name}: {name} is not listed in Manifest.json")
    if not path.is_file():
        raise ArtifactError(f"{package.root.name}: {name} is missing")
    return path


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / "Manifest.json").read_text("utf-8"))
    except OSError as error:
        raise ArtifactError(
            f"{path} is not a .mlpackage, no Manifest.json: {error.strerror}"
        ) from error
    except ValueError as error:
        raise ArtifactError(f"{path.name}/Manifest.json is not JSON: {error}") from error
    if not isinstance(manifest, dict):
        raise ArtifactError(f"{path.name}/Manifest.json is not an object")
    if str(manifest.get("fileFormatVersion", "")).split(".")[0] != "1":
        raise ArtifactError(f"{path.name}/Manifest.json is not of file format version 1")
    return manifest


def _item(path: Path, entry: Any) -> Path:
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        raise ArtifactError(f"{path.name}/Manifest.json lists an item without a path")
    item = _inside(path, path / "Data", entry["path"])
    if not item.exists():
        raise ArtifactError(f"{path.name}: {entry['path']} is listed but missing")
    return item


def _inside(root: Path, folder: Path, name: str) -> Path:
    """`folder / name`, refused if it leaves the package by `..` or by a link."""
    pure = PurePosixPath(name)
    path = (folder / name).resolve()
    if (
        pure.is_absolute()
        or ".." in pure.parts
        or not path.is_relative_to((root / "Data").resolve())
    ):
        raise ArtifactError(f"{root.name}: path {name!r} leaves the package")
    return path
