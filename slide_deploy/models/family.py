"""What a model family offers: how its checkpoints are recognised, and how it is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from slide_deploy.types import TensorSpec

__all__ = ["Family", "InferredConfig"]


@dataclass(frozen=True)
class InferredConfig:
    """An architecture read off a checkpoint; `notes` tell what was assumed, for the user."""

    config: Any
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """One model family; a file in `models/` defines it as `FAMILY`.

    `recognises` looks at a state dict's keys. `recognise` gives the sizes, from the training
    configuration where there is one and from keys and shapes where there is none; it raises
    AmbiguousModel, naming the option, where neither tells. `config_type` is a frozen
    dataclass of JSON values and tuples, so that it travels as a file's metadata. `prefix` is
    what the module's own names have in front of the checkpoint's.
    """

    name: str
    config_type: type
    recognises: Callable[[Mapping[str, Tensor]], bool]
    recognise: Callable[
        [Mapping[str, Tensor], Mapping[str, Any] | None, tuple[int, int] | None], InferredConfig
    ]
    build: Callable[[Any], nn.Module]
    input_spec: Callable[[Any], TensorSpec]
    output_specs: Callable[[Any], tuple[TensorSpec, ...]]
    prefix: str = ""
