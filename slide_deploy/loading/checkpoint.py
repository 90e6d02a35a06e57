"""Read checkpoints without running code from them.

Tensors are read by `torch.load(weights_only=True)`, whose unpickler only creates plain data. The
few harmless classes that published training scripts store are mapped to plain types.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slide_deploy.errors import CheckpointError, UnsafeCheckpoint
from slide_deploy.loading.pickle_scan import is_torchscript, unsafe_global
from slide_deploy.utils.files import check_file
from slide_deploy.utils.hashing import sha256_of

__all__ = ["Checkpoint", "Source", "State", "read_checkpoint"]

State = dict[str, Tensor]

EMA, MODEL = "ema", "model"
_STATES = {
    "state_dict_ema": EMA,
    "model_ema": EMA,
    "ema": EMA,
    "model": MODEL,
    "state_dict": MODEL,
}
_WRAPPERS = ("module.", "_orig_mod.")
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.int32)
_NAMED_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


@dataclass(frozen=True)
class Source:
    """The origin of weights: file name, SHA-256 of the file, and set of weights."""

    path_name: str
    sha256: str
    weights: str


@dataclass(frozen=True)
class Checkpoint:
    """The content of a file: one or two sets of weights, and a description of the architecture.

    `states` has the keys "model" and/or "ema", with wrapper prefixes removed. `config` is the
    training configuration as nested mappings. `metadata` is that of a safetensors file.
    """

    path_name: str
    sha256: str
    kind: str
    states: Mapping[str, State]
    config: Mapping[str, Any] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def choose(self, weights: str | None) -> tuple[Source, State]:
        """The selected weights; by default the averaged ones, if the file has them."""
        chosen = weights or (EMA if EMA in self.states else MODEL)
        if chosen not in self.states:
            there = " and ".join(sorted(self.states))
            raise CheckpointError(
                f"{self.path_name} has no {chosen!r} weights, only {there}",
                f"pass --weights {next(iter(self.states))} or omit --weights",
            )
        return Source(self.path_name, self.sha256, chosen), self.states[chosen]


def read_checkpoint(path: Path) -> Checkpoint:
    """Read an official, EMA, DDP or bare checkpoint, or safetensors.

    Raises CheckpointError, or UnsafeCheckpoint if the pickle refers to a global that is not plain
    data; the error names it, and no code has run.
    """
    check_file(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    content = _unpickle(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} contains a {type(content).__name__}, not a state dict",
            "save model.state_dict(), not the model",
        )
    states = _states(content)
    for state in states.values():
        _check_weights(path, state)
    if not states:
        raise CheckpointError(
            f"{path} contains no state dict", f"its top-level keys are {_first_keys(content)}"
        )
    config = content.get("config")
    wrapped = any(key in _STATES for key in content)
    return Checkpoint(
        path_name=path.name,
        sha256=sha256_of(path),
        kind=_kind(states, config, wrapped),
        states=states,
        config=config if isinstance(config, Mapping) else None,
    )


def _unpickle(path: Path) -> Any:
    if is_torchscript(path):
        raise CheckpointError(
            f"{path} is a TorchScript archive, not a checkpoint",
            "pass the .pth file that it was made from",
        )
    try:
        with torch.serialization.safe_globals(_plain_globals()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = _NAMED_GLOBAL.search(str(error))
        if wanted := named[1] if named else unsafe_global(path):
            raise UnsafeCheckpoint(
                f"unpickling {path} would import {wanted}; nothing was run",
                "save the plain state dict: torch.save(model.state_dict(), path)",
            ) from error
        raise _not_a_checkpoint(path) from error
    except MemoryError:
        raise
    except Exception as error:  # torch passes on zip, struct, key and value errors
        raise _not_a_checkpoint(path) from error


def _not_a_checkpoint(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a PyTorch checkpoint, or is truncated", "download or save it again"
    )


class _Discarded:
    """Replaces argparse.Namespace, the options of a training script, and ignores attributes."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass


def _plain_globals() -> list[Any]:
    """Globals that training scripts store and that only create plain data."""
    import numpy as np

    scalar = np.float64(0).__reduce__()[0]
    dtypes = {type(np.dtype(kind)) for kind in "efdbhilBHILq?"}
    return [
        (OrderedDict, "yacs.config.CfgNode"),
        (_Discarded, "argparse.Namespace"),
        (scalar, "numpy._core.multiarray.scalar"),
        (scalar, "numpy.core.multiarray.scalar"),
        np.dtype,
        *dtypes,
    ]


def _read_safetensors(path: Path) -> Checkpoint:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _not_a_checkpoint(path) from error
    _check_weights(path, state)
    weights = metadata.get("weights", MODEL)
    return Checkpoint(
        path_name=path.name,
        sha256=sha256_of(path),
        kind="fused weights" if "family" in metadata else "state dict",
        states={weights if weights in (EMA, MODEL) else MODEL: _unwrapped(state)},
        metadata=metadata,
    )


def _states(content: Mapping[str, Any]) -> dict[str, State]:
    found = {
        name: _unwrapped(content[key])
        for key, name in reversed(_STATES.items())
        if isinstance(content.get(key), Mapping) and _is_state(content[key])
    }
    if not found and _is_state(content):
        found[MODEL] = _unwrapped(content)
    return found


def _is_state(content: Mapping[str, Any]) -> bool:
    return bool(content) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    )


def _unwrapped(state: Mapping[str, Tensor]) -> State:
    for prefix in _WRAPPERS:
        if all(key.startswith(prefix) for key in state):
            return _unwrapped({key.removeprefix(prefix): value for key, value in state.items()})
    return {key: value.detach() for key, value in state.items()}


def _check_weights(path: Path, state: State) -> None:
    for name, value in state.items():
        if value.layout is not torch.strided or value.is_meta or value.dtype not in _DTYPES:
            kind = "without values" if value.is_meta else f"{value.dtype}, {value.layout}"
            raise CheckpointError(
                f"{path}: {name} is {kind.replace('torch.', '')}, not a plain tensor",
                "save dense weights of float16, bfloat16, float32 or float64",
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(
                f"{path}: {name} has NaN or infinite values",
                "if training diverged, use an earlier checkpoint",
            )


def _kind(states: Mapping[str, State], config: object, wrapped: bool) -> str:
    if EMA in states and MODEL in states:
        return "training checkpoint with averaged weights"
    if wrapped:
        return "training checkpoint" if config is not None else "wrapped state dict"
    return "state dict"


def _first_keys(content: Mapping[Any, Any], count: int = 5) -> str:
    names = [repr(key) for key in content][:count]
    return ", ".join(names) + (", …" if len(content) > count else "")
