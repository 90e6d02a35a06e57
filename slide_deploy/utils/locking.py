"""One process at a time works in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock

__all__ = ["locked_folder"]

LOCK_NAME = ".slide-deploy.lock"

# How often the folder may vanish under a process that waits for it, before that is an error.
ATTEMPTS = 20


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process alone; another that asks for it waits.

    The folder and those above it are made where they are missing, and removed again if they are
    empty at the end. The lock is a hidden file in the folder, so that it holds for every user
    and machine that can write there; it is gone afterwards. The system drops the lock of a
    process that dies. Raises OSError where the folder cannot be made or written.
    """
    from filelock import FileLock

    made: list[Path] = []
    lock = FileLock(folder / LOCK_NAME)
    try:
        _acquire(lock, folder, made)
        try:
            yield
        finally:
            # Before the release: whoever waits sees that its open file is gone, and opens another.
            with suppress(OSError):  # Windows removes no open file; there the release does it
                os.unlink(lock.lock_file)
            lock.release()
    finally:
        for empty in made:
            with suppress(OSError):  # not empty: it holds what was asked for
                empty.rmdir()


def _acquire(lock: BaseFileLock, folder: Path, made: list[Path]) -> None:
    """Make `folder`, adding to `made` what was missing, and wait for its lock."""
    for remaining in reversed(range(ATTEMPTS)):
        made += [new for new in (folder, *folder.parents) if not new.exists() and new not in made]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            return
        except FileNotFoundError:  # a process that had made the folder failed and removed it
            if not remaining:
                raise
