"""Checks, sizes and removal of files and folders."""

from __future__ import annotations

import shutil
from pathlib import Path

from slide_deploy.errors import CheckpointError

__all__ = ["check_file", "remove", "size_of"]


def check_file(path: Path) -> None:
    """Raise CheckpointError unless `path` is a file with content, before heavy imports."""
    if path.is_dir():
        raise CheckpointError(f"{path} is a directory", "pass the checkpoint file inside it")
    if not path.exists():
        raise CheckpointError(f"{path} does not exist", "check the path")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty", "download or save it again")


def remove(path: Path) -> None:
    """Remove a file or folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """Size in bytes of a file, or of all files of a folder."""
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files if file.is_file())
