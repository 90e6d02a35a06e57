"""Checks, sizes and removal of files and folders."""

from __future__ import annotations

import shutil
from pathlib import Path

from slide_deploy.errors import CheckpointError

__all__ = ["HUB_WEIGHTS", "checkpoint_at", "remove", "size_of"]

HUB_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Names of the weights in a folder as Hugging Face's libraries save it, beside config.json."""

_LFS_POINTER = b"version https://git-lfs"


def checkpoint_at(path: Path) -> Path:
    """The checkpoint file that `path` is, or that the Hugging Face folder `path` holds.

    Raises CheckpointError unless it is a file with content; quick, before heavy imports.
    """
    if path.is_dir():
        path = _weights_in(path)
    if not path.exists():
        raise CheckpointError(f"{path} does not exist", "check the path")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty", "download or save it again")
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise CheckpointError(
                f"{path} is a git-LFS pointer, not the checkpoint itself",
                "fetch the file with `git lfs pull`, or download it from its page",
            )
    return path


def _weights_in(folder: Path) -> Path:
    if (folder / "adapter_config.json").exists():
        raise CheckpointError(
            f"{folder} holds LoRA or other adapters, not a whole model",
            "merge them into the model with peft's merge_and_unload(), then save that",
        )
    for name in HUB_WEIGHTS:
        if (folder / name).exists():
            return folder / name
        if (folder / f"{name}.index.json").exists():
            raise CheckpointError(
                f"{folder} holds a model in several files ({name}.index.json)",
                "save it as one: save_pretrained(folder, max_shard_size='100GB')",
            )
    raise CheckpointError(f"{folder} is a directory", "give the checkpoint file inside it")


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
