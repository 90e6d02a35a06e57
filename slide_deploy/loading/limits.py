"""How much a checkpoint may ask for: a small file must not fill the memory or take minutes."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Collection
from pathlib import Path

from slide_deploy.errors import CheckpointError
from slide_deploy.loading.containers import State

__all__ = [
    "SAVE_PLAIN",
    "MeteredFile",
    "archive_entries",
    "check_archive",
    "check_names",
    "check_values",
]

SAVE_PLAIN = "save the plain state dict: torch.save(model.state_dict(), path)"

# Far above what training scripts save: a thousand tensors take 0.2 MB of pickle.
_LARGEST_PICKLE = 8 * 2**20  # bytes
_MOST_READS = 1_000_000
_MOST_RECORDS = 100_000
_MOST_KEYS = 50_000
_LONGEST_KEY = 1000  # characters
_BEYOND_ITS_SIZE = 2**28  # bytes


def archive_entries(path: Path) -> list[zipfile.ZipInfo]:
    """The records of a file in torch's zip format; none for any other file.

    Raises what zipfile raises where the archive is broken.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\3\4":
            return []
    with zipfile.ZipFile(path) as archive:
        return archive.infolist()


def check_archive(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Raise CheckpointError where reading the archive would take more than a file of its size."""
    whole, own = sum(entry.file_size for entry in entries), path.stat().st_size
    if whole > own + _BEYOND_ITS_SIZE:
        raise CheckpointError(
            f"{path} is compressed: its {own / 1e6:.1f} MB become {whole / 1e9:.1f} GB", SAVE_PLAIN
        )
    pickles = sum(entry.file_size for entry in entries if entry.filename.endswith(".pkl"))
    if pickles > _LARGEST_PICKLE or len(entries) > _MOST_RECORDS:
        raise CheckpointError(
            f"{path} holds {pickles / 1e6:.1f} MB beside its tensors, in {len(entries)} records",
            SAVE_PLAIN,
        )


def check_names(path: Path, names: Collection[object]) -> None:
    """Raise CheckpointError for more or longer names than any model has."""
    if len(names) > _MOST_KEYS:
        raise CheckpointError(f"{path} has {len(names)} keys in one state dict", SAVE_PLAIN)
    longest = max((len(name) for name in names if isinstance(name, str)), default=0)
    if longest > _LONGEST_KEY:
        raise CheckpointError(f"{path} has a key of {longest} characters", SAVE_PLAIN)


def check_values(path: Path, state: State) -> None:
    """Raise CheckpointError for tensors with more values than the file can hold."""
    claimed, own = sum(v.numel() * v.element_size() for v in state.values()), path.stat().st_size
    if claimed > own + _BEYOND_ITS_SIZE:
        raise CheckpointError(
            f"{path} has tensors of {claimed / 1e9:.1f} GB in a file of {own} bytes",
            "save them whole, not expanded: value.contiguous()",
        )


class MeteredFile(io.BufferedReader):
    """A file in torch's format before zip, whose pickles end after so many reads.

    torch reads the tensors' values past this, from the file's descriptor.
    """

    left = _MOST_READS

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))

    def read(self, size: int | None = -1, /) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise pickle.UnpicklingError("the pickle is too long")
        return super().read(size)
