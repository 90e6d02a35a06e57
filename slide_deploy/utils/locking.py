"""Locks a folder for one process."""

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

# Attempts to lock a folder that other processes keep removing.
ATTEMPTS = 20


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Lock `folder` for this process; other processes wait.

    Missing folders are created, and removed again if they are empty at the end. The lock is a
    hidden file in the folder, so that it works for every user and machine that can write there. It
    is removed afterwards; the system releases the lock of a process that dies. Raises OSError if
    the folder cannot be created or written.
    """
    from filelock import FileLock

    made: list[Path] = []
    lock = FileLock(folder / LOCK_NAME)
    try:
        _acquire(lock, folder, made)
        try:
            yield
        finally:
            # Before the release, so that waiting processes notice it and open a new file.
            with suppress(OSError):  # Windows cannot remove an open file; the release removes it
                os.unlink(lock.lock_file)
            lock.release()
    finally:
        for empty in made:
            with suppress(OSError):  # not empty
                empty.rmdir()


def _acquire(lock: BaseFileLock, folder: Path, made: list[Path]) -> None:
    """Create `folder`, adding created folders to `made`, and wait for its lock."""
    for remaining in reversed(range(ATTEMPTS)):
        made += [new for new in (folder, *folder.parents) if not new.exists() and new not in made]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
            return
        except FileNotFoundError:  # the process that had created the folder failed and removed it
            if not remaining:
                raise
