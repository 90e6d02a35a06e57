"""Names and specs of the outputs of custom models, and the flattening of nested outputs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from slide_deploy.errors import UsageError
from slide_deploy.types import TensorSpec, with_batch

__all__ = ["FlatOutputs", "is_flat", "named_tensors", "output_specs"]


class FlatOutputs(nn.Module):
    """A module that returns the output tensors of `model` as a plain tuple, or a single tensor."""

    # Weights in artifacts carry this name; messages leave it out.
    PLACE = "wrapped_model"

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.add_module(self.PLACE, model)

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        values = tuple(
            value for _, value in named_tensors(self.get_submodule(self.PLACE)(*inputs), "")
        )
        return values[0] if len(values) == 1 else values


def named_tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors in a possibly nested output, each with a name."""
    if isinstance(value, Tensor):
        yield name or "output", value
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            yield from named_tensors(entry, f"{name}_{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for index, entry in enumerate(value):
            yield from named_tensors(entry, f"{name or 'output'}_{index}" if index else name)
    elif value is not None:
        raise UsageError(
            f"the model returns a {type(value).__name__} among its outputs",
            "return tensors, or lists, tuples and dicts of them",
        )


def output_specs(named: list[tuple[str, Tensor]], taken: set[str]) -> tuple[TensorSpec, ...]:
    """Specs of these outputs, with names that are identifiers and not in `taken`.

    Raises UsageError if an output is not float32 with a batch of 1.
    """
    specs: list[TensorSpec] = []
    for name, value in named:
        own = re.sub(r"\W", "_", name)
        own = own if own.isidentifier() else f"output_{own}"
        while own in taken:
            own += "_out"
        taken = taken | {own}
        dtype = str(value.dtype).removeprefix("torch.")
        if dtype != "float32" or not value.ndim or value.shape[0] != 1:
            raise UsageError(
                f"output {own} is {dtype}{list(value.shape)}",
                "outputs must be float32 with the batch as first dimension: return the scores, "
                "not the selected indices",
            )
        specs.append(with_batch(TensorSpec(own, tuple(value.shape)), 1))
    if not specs:
        raise UsageError("the model returns no tensor", "return at least one tensor")
    return tuple(specs)


def is_flat(value: Any) -> bool:
    """Whether a value is a plain tuple of tensors."""
    return type(value) is tuple and all(isinstance(entry, Tensor) for entry in value)
