"""The interface of a model family."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from slide_deploy.models.config_inference import class_specs, image_spec
from slide_deploy.types import TensorSpec

__all__ = ["Family", "InferredConfig", "block_names"]


@dataclass(frozen=True)
class InferredConfig:
    """An architecture inferred from a checkpoint; `notes` are assumptions."""

    config: Any
    notes: tuple[str, ...] = ()


def block_names(module: nn.Module) -> list[str]:
    """Modules among which a failure is located: attentions, norms, MLPs and their siblings.

    Descends into containers, and into every module that contains one named `attn`.
    """

    def walk(prefix: str, parent: nn.Module) -> Iterator[str]:
        for name, child in parent.named_children():
            path = f"{prefix}{name}"
            if isinstance(child, (nn.ModuleList, nn.Sequential)) or _holds_attention(child):
                yield from walk(f"{path}.", child)
            elif any(True for _ in child.parameters()):
                yield path

    return list(walk("", module))


def _holds_attention(module: nn.Module) -> bool:
    return any(name.rpartition(".")[2] == "attn" for name, _ in module.named_modules())


def _unchanged(module: nn.Module) -> nn.Module:
    return module


@dataclass(frozen=True)
class Family:
    """One model family; a file in `models/` defines it as `FAMILY`.

    `recognises` looks at a state dict's keys. `recognise` gives the sizes, from the training
    configuration where there is one and from keys and shapes where there is none; it raises
    AmbiguousModel, naming the option, where neither tells. `config_type` is a frozen
    dataclass of JSON values and tuples, so that it travels as a file's metadata. `prefix` is
    what the module's own names have in front of the checkpoint's. `build` is also called on the
    meta device, for names and shapes.

    `simplify` returns an equivalent copy of a fused model that is easier to export. It is called
    with models of every family, and returns unknown ones unchanged. `derived` are the names of
    buffers that the architecture determines: a checkpoint may lack them; otherwise they must agree.
    Those of `derived_from_size` also depend on the image size, and are not compared if the user
    gives another one. `block_names` lists the modules among which a failure is located.
    """

    name: str
    config_type: type
    recognises: Callable[[Mapping[str, Tensor]], bool]
    recognise: Callable[
        [Mapping[str, Tensor], Mapping[str, Any] | None, tuple[int, int] | None], InferredConfig
    ]
    build: Callable[[Any], nn.Module]
    input_spec: Callable[[Any], TensorSpec] = image_spec
    output_specs: Callable[[Any], tuple[TensorSpec, ...]] = class_specs
    prefix: str = ""
    simplify: Callable[[nn.Module], nn.Module] = _unchanged
    derived: tuple[str, ...] = ()
    derived_from_size: tuple[str, ...] = ()
    block_names: Callable[[nn.Module], list[str]] = block_names
