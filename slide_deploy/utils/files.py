"""Write beside, then swap in: a file or folder is either the old one or the new one, whole."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from slide_deploy.errors import CheckpointError, OutputError

__all__ = ["check_file", "remove", "sha256_of", "size_of", "staged", "staged_folder"]

SCRATCH = ".slide-deploy-"

# What describes the others is swapped in after them.
LAST = ("report.html", "report.json", "manifest.json")


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A scratch path of the same name to write a file to; on success it becomes `path`.

    On any error nothing at `path` has changed and the scratch is gone. Raises OutputError
    where the disk is full or the place cannot be written.
    """
    with staged_folder(path.parent) as scratch:
        yield scratch / path.name


@contextmanager
def staged_folder(output: Path) -> Iterator[Path]:
    """A scratch folder; on success everything in it takes its place in `output`, by name.

    `output` is made where it does not exist. Each file or folder is swapped in whole, the
    manifest after what it describes. One process at a time works in an output folder: another
    waits. On any error `output` is as it was. Raises OutputError where the disk is full or the
    place cannot be written.
    """
    made = [folder for folder in (output, *output.parents) if not folder.exists()]
    try:
        output.mkdir(parents=True, exist_ok=True)
        with _locked(output):
            for stale in output.glob(f"{SCRATCH}*"):  # of a process that was killed
                shutil.rmtree(stale, ignore_errors=True)
            scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=output))
            try:
                yield scratch
                for part in sorted(scratch.iterdir()):
                    _sync(part)
                for part in sorted(scratch.iterdir(), key=_turn):
                    _swap_in(part, output / part.name)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise OutputError(
            f"cannot write to {output}: {_reason(error)}",
            "free some space, or choose another --output",
        ) from error
    finally:
        for folder in made:
            with suppress(OSError):  # not empty: it holds what was asked for
                folder.rmdir()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process alone; the system lets go where a process dies."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def check_file(path: Path) -> None:
    """Raise CheckpointError unless `path` is a file with content; quick, before heavy imports."""
    if path.is_dir():
        raise CheckpointError(f"{path} is a directory", "give the checkpoint file inside it")
    if not path.exists():
        raise CheckpointError(f"{path} does not exist", "check the path")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty", "download or save it again")


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, or of a directory's files and their relative names."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for part in sorted(part for part in path.rglob("*") if part.is_file()):
        digest.update(f"{part.relative_to(path).as_posix()}\0{sha256_of(part)}\n".encode())
    return digest.hexdigest()


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files if file.is_file())


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
    """Exchange two names atomically; by three renames where the system has no call for it."""
    if _swap_names(os.fsencode(a), os.fsencode(b)):
        return
    aside = b.with_name(f".{b.name}.old")
    remove(aside)
    os.rename(b, aside)
    os.rename(a, b)
    os.rename(aside, a)


def _swap_names(a: bytes, b: bytes) -> bool:
    """Ask the system for an atomic exchange; False where it has none."""
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
