"""Replaces files and folders atomically."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from slide_deploy.errors import OutputError
from slide_deploy.utils.files import remove
from slide_deploy.utils.locking import locked_folder
from slide_deploy.utils.signals import signals_held

__all__ = ["staged", "staged_folder"]

SCRATCH = ".slide-deploy-"

# Files that describe the others are replaced last.
LAST = ("report.html", "report.json", "manifest.json")


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Yield a scratch path of the same file name; on success the file is moved to `path`.

    On any error `path` is unchanged and the scratch file is removed. Raises OutputError if the disk
    is full or `path` cannot be written.
    """
    with staged_folder(path.parent) as scratch:
        yield scratch / path.name


@contextmanager
def staged_folder(
    output: Path, superseded: Callable[[Path, Path], Iterable[Path]] = lambda scratch, output: ()
) -> Iterator[Path]:
    """A scratch folder; on success everything in it takes its place in `output`, by name.

    `output` is made where it does not exist. Each file or folder is swapped in whole, the
    manifest after what it describes; then the files that `superseded(scratch, output)` gives are
    removed. One process at a time works in an output folder: another waits. On any error `output`
    is as it was. Raises OutputError where the disk is full or the place cannot be written.
    """
    try:
        with locked_folder(output):
            for stale in output.glob(f"{SCRATCH}*"):  # of a process that died, as we have the lock
                shutil.rmtree(stale, ignore_errors=True)
            scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=output))
            try:
                yield scratch
                for part in sorted(scratch.iterdir()):
                    _sync(part)
                old = tuple(superseded(scratch, output))
                with signals_held():
                    for part in sorted(scratch.iterdir(), key=_turn):
                        _swap_in(part, output / part.name)
                    for path in old:
                        path.unlink(missing_ok=True)
            finally:
                with signals_held():
                    shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise OutputError(
            f"cannot write to {output}: {_reason(error)}",
            "free disk space, or use another --output",
        ) from error


def _turn(part: Path) -> tuple[int, str]:
    return LAST.index(part.name) if part.name in LAST else -1, part.name


def _swap_in(scratch: Path, path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        if not scratch.is_dir():
            raise IsADirectoryError(errno.EISDIR, f"{path.name} is a folder", str(path))
        # A folder with content cannot be renamed over; exchanging the two names is atomic.
        _exchange(scratch, path)
    else:
        os.replace(scratch, path)


def _exchange(a: Path, b: Path) -> None:
    """Exchange two names atomically, or by three renames if the system has no call for it."""
    if _swap_names(os.fsencode(a), os.fsencode(b)):
        return
    aside = b.with_name(f".{b.name}.old")
    remove(aside)
    os.rename(b, aside)
    os.rename(a, b)
    os.rename(aside, a)


def _swap_names(a: bytes, b: bytes) -> bool:
    """Exchange two names by a system call; False if there is none."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        at_cwd, exchange = -100, 2
        if not hasattr(libc, "renameat2"):
            return False
        return bool(libc.renameat2(at_cwd, a, at_cwd, b, exchange) == 0)
    if sys.platform == "darwin":
        swap = 2
        return bool(ctypes.CDLL(None).renamex_np(a, b, swap) == 0)
    return False


def _sync(path: Path) -> None:
    parts = [part for part in path.rglob("*") if part.is_file()] if path.is_dir() else [path]
    for part in parts:
        with part.open("rb") as file:
            os.fsync(file.fileno())


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()[:120]
