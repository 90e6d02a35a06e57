"""Change tensors in an artifact's file.

All four formats store the elements of a tensor as contiguous little-endian bytes: ONNX in
`raw_data`, OpenVINO in its .bin, Core ML in weight.bin or the program's immediate values,
TorchScript in uncompressed archive members. So a tensor can be found by its bytes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from torch import nn

from slide_deploy.models.slide_attention import LocalAttention
from slide_deploy.models.window_attention import WindowAttention

__all__ = ["patch", "stored_arrays"]

# k and v share one shift kernel, which a converter may store twice.
MOST_COPIES = 2
TABLE = "relative_position_bias_table"


def patch(
    clean: Path, destination: Path, sound: nn.Module, broken: nn.Module, dtype: str = "float32"
) -> bool:
    """Copy an artifact, replacing every tensor that differs between the modules.

    Returns False, without writing, if a tensor is not found because the converter folded it.
    `dtype` is the number type of the stored weights.
    """
    files = _files(clean)
    for name, parameter in sound.named_parameters():
        if parameter.equal(broken.get_parameter(name)):
            continue
        pairs = zip(stored_arrays(sound, name), stored_arrays(broken, name), strict=True)
        if not any(_replace(files, old.astype(dtype), new.astype(dtype)) for old, new in pairs):
            return False
    if clean.is_dir():
        shutil.copytree(clean, destination)
    for path, content in files.items():
        (destination / path if clean.is_dir() else destination).write_bytes(content)
    return True


def stored_arrays(module: nn.Module, name: str) -> tuple[np.ndarray, ...]:
    """The arrays as which converters may store a parameter: itself, transposed, or folded."""
    parameter = module.get_parameter(name).detach()
    owner_name, _, own = name.rpartition(".")
    owner = module.get_submodule(owner_name)
    if own == TABLE and isinstance(owner, LocalAttention):
        by_channel = parameter.reshape(owner.config.heads, 1, owner.config.taps)
        return (by_channel.expand(-1, owner.config.head_dim, -1).numpy(),)
    if own == TABLE and isinstance(owner, WindowAttention):
        bias = owner.bias().detach()
        mask = getattr(module.get_submodule(owner_name.rpartition(".")[0]), "attn_mask", None)
        return (bias.numpy() if mask is None else (bias + mask[:, None]).numpy(),)
    if parameter.ndim == 2:
        return parameter.numpy(), parameter.t().numpy()
    return (parameter.numpy(),)


def _files(artifact: Path) -> dict[Path, bytes]:
    if artifact.is_file():
        return {Path(): artifact.read_bytes()}
    parts = (part for part in artifact.rglob("*") if part.is_file())
    return {part.relative_to(artifact): part.read_bytes() for part in parts}


def _replace(files: dict[Path, bytes], old: np.ndarray, new: np.ndarray) -> bool:
    if np.ptp(old) == 0:  # zeros or ones may belong to any tensor
        return False
    before, after = old.tobytes(), new.tobytes()
    if not 1 <= sum(content.count(before) for content in files.values()) <= MOST_COPIES:
        return False
    for path, content in files.items():
        files[path] = content.replace(before, after)
    return True
