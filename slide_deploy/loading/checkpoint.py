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
from slide_deploy.loading.containers import (
    EMA,
    MODEL,
    State,
    is_averaged,
    plain,
    state_paths,
    states_in,
    unwrapped,
    value_at,
    without_counters,
)
from slide_deploy.loading.limits import (
    SAVE_PLAIN,
    MeteredFile,
    archive_entries,
    check_archive,
    check_names,
    check_values,
)
from slide_deploy.loading.pickle_scan import unsafe_global
from slide_deploy.loading.refused_kinds import is_quantized, quantized, refuse_other_kinds
from slide_deploy.packaging.json_file import read_json_object
from slide_deploy.utils.files import HUB_WEIGHTS, checkpoint_at
from slide_deploy.utils.hashing import sha256_of
from slide_deploy.utils.text import cut, first_names

__all__ = ["Checkpoint", "Source", "read_checkpoint"]

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

    `states` has the keys "model" and/or "ema", wrapper prefixes removed. `config` is the
    training configuration as nested mappings. `metadata` is a safetensors file's own. `notes`
    tell what was chosen or left out.
    """

    path_name: str
    sha256: str
    kind: str
    states: Mapping[str, State]
    config: Mapping[str, Any] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file's name without suffix; that of the folder for Hugging Face's fixed names."""
        folder, _, file = self.path_name.rpartition("/")
        return folder or Path(file).stem

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


def read_checkpoint(path: Path, key: str | None = None) -> Checkpoint:
    """Read a checkpoint of any kind in docs/checkpoints.md.

    `key` says where in the file the weights are, as `a.b`; without it they are looked for under
    the usual names. Raises CheckpointError, or UnsafeCheckpoint where the pickle asks for a
    global that is not plain data; the error names it and nothing of it has run.
    """
    path = checkpoint_at(path)
    content: Mapping[Any, Any]
    metadata: Mapping[str, str]
    if path.suffix == ".safetensors":
        content, metadata = _read_safetensors(path)
    else:
        content, metadata = _plain_mapping(path, _unpickle(path)), {}
    states, notes = _states(path, content, key)
    if metadata.get("weights") == EMA:  # of a file that `fuse` wrote
        states = {EMA: states[MODEL]}
    cleaned = {}
    for name, state in states.items():
        _check_weights(path, state)
        own, counters = without_counters(state)
        cleaned[name] = {name: value.detach() for name, value in unwrapped(own).items()}
        notes += tuple(note for note in counters if note not in notes)
    hub = path.name in HUB_WEIGHTS and (path.parent / "config.json").is_file()
    config = _hub_config(path) if hub else content.get("config")
    if "family" in metadata:
        kind = "fused weights"
    elif hub:
        kind = "Hugging Face folder"
    else:
        kind = _kind(states, config, content)
    return Checkpoint(
        path_name=f"{path.resolve().parent.name}/{path.name}" if hub else path.name,
        sha256=sha256_of(path),
        kind=kind,
        states=cleaned,
        config=config if isinstance(config, Mapping) else None,
        metadata=metadata,
        notes=notes,
    )


def _plain_mapping(path: Path, content: Any) -> Mapping[Any, Any]:
    try:
        content = plain(content)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error.message}", error.hint) from error
    except RecursionError as error:
        raise _not_a_checkpoint(path) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} contains a {type(content).__name__}, not a state dict",
            "save model.state_dict(), not the model",
        )
    return content


def _states(
    path: Path, content: Mapping[Any, Any], key: str | None
) -> tuple[dict[str, State], tuple[str, ...]]:
    """The sets of weights, at `key` where one is given, and a note that says so."""
    there = value_at(content, key) if key else content
    states: dict[str, State] = {}
    if isinstance(there, Mapping):
        states = states_in(there)
        for mapping in (there, *(inner for inner in there.values() if isinstance(inner, Mapping))):
            check_names(path, mapping)
            refuse_other_kinds(path, mapping)
    for state in states.values():
        check_names(path, state)
        refuse_other_kinds(path, state)
    if not states:
        others = next(state_paths(content), None)
        hint = f"pass --key {cut(others)}" if others else f"top-level keys are {_names(content)}"
        where = f" at {cut(key)!r}" if key else ""
        raise CheckpointError(f"{path} holds no state dict{where}", hint)
    if not key:
        return states, ()
    if list(states) == [MODEL] and is_averaged(key):
        states = {EMA: states[MODEL]}
    return states, (f"the weights at {cut(key)!r} are taken",)


def _names(content: Mapping[Any, Any]) -> str:
    names = [repr(key) if isinstance(key, str) else type(key).__name__ for key in content]
    return first_names(names, 5) or "none"


def _unpickle(path: Path) -> Any:
    try:
        entries = archive_entries(path)
    except Exception as error:  # zipfile also lets struct, Unicode and NotImplemented through
        raise _not_a_checkpoint(path) from error
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise CheckpointError(
            f"{path} is a TorchScript archive, not a checkpoint",
            "pass the .pth file that it was made from",
        )
    check_archive(path, entries)
    try:
        with torch.serialization.safe_globals(_plain_globals()):
            if entries:
                return torch.load(path, map_location="cpu", weights_only=True)
            with MeteredFile(path) as file:
                return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = _NAMED_GLOBAL.search(str(error))
        if wanted := named[1] if named else unsafe_global(path):
            raise UnsafeCheckpoint(
                f"unpickling {path} would import {cut(wanted)}; nothing was run", SAVE_PLAIN
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


def _discarded(*arguments: object) -> _Discarded:
    return _Discarded()


def _plain_globals() -> list[Any]:
    """Names that training scripts store and that only make plain data, or are passed over."""
    import numpy as np

    scalar = np.float64(0).__reduce__()[0]
    dtypes = {type(np.dtype(kind)) for kind in "efdbhilBHILq?"}
    return [
        (OrderedDict, "yacs.config.CfgNode"),
        (_Discarded, "argparse.Namespace"),
        # MMEngine's logs, arrays of random states, paths.
        (_Discarded, "mmengine.logging.history_buffer.HistoryBuffer"),
        (_Discarded, "numpy.ndarray"),
        (_discarded, "numpy._core.multiarray._reconstruct"),
        (_discarded, "numpy.core.multiarray._reconstruct"),
        *((_discarded, f"pathlib{part}.PosixPath") for part in ("", "._local")),
        (scalar, "numpy._core.multiarray.scalar"),
        (scalar, "numpy.core.multiarray.scalar"),
        np.dtype,
        *dtypes,
    ]


def _read_safetensors(path: Path) -> tuple[State, Mapping[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            names = file.keys()
            check_names(path, names)
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _not_a_checkpoint(path) from error


def _hub_config(path: Path) -> Mapping[str, Any]:
    """The config.json beside the weights; timm's size of the image by our name for it."""
    config = read_json_object(path.with_name("config.json"), "config")
    if "quantization_config" in config:
        raise quantized(path, "quantization_config in config.json")
    trained = config.get("pretrained_cfg")
    size = trained.get("input_size") if isinstance(trained, dict) else None
    return {"image_size": size[1:], **config} if isinstance(size, list) else config


def _check_weights(path: Path, state: State) -> None:
    for name, value in state.items():
        if is_quantized(value):
            raise quantized(path, name)
        if type(value) not in (Tensor, torch.nn.Parameter) or vars(value):
            raise CheckpointError(
                f"{path}: {cut(name)} is of a subclass of Tensor, or has extra attributes",
                SAVE_PLAIN,
            )
        if value.layout is not torch.strided or value.is_meta or value.dtype not in _DTYPES:
            kind = "without values" if value.is_meta else f"{value.dtype}, {value.layout}"
            raise CheckpointError(
                f"{path}: {cut(name)} is {kind.replace('torch.', '')}, not a plain tensor",
                "save dense weights of float16, bfloat16, float32 or float64",
            )
    check_values(path, state)
    for name, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(
                f"{path}: {cut(name)} has NaN or infinite values",
                "training diverged: use an earlier checkpoint",
            )


def _kind(states: Mapping[str, State], config: object, content: Mapping[Any, Any]) -> str:
    if len(states) == 2:
        return "training checkpoint with averaged weights"
    if all(state.keys() != content.keys() for state in states.values()):
        return "training checkpoint" if config is not None else "wrapped state dict"
    return "state dict"
