"""Which integers an input takes: what the user says, else the rows of the embedding it reaches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from slide_deploy.types import TensorSpec

__all__ = ["embedding_rows", "with_value_ranges"]


@contextmanager
def embedding_rows(module: nn.Module, example: Sequence[Tensor]) -> Iterator[dict[int, int]]:
    """Rows of the smallest embedding that each input reaches unchanged, by its place, after a
    run of `module` on `example` inside."""
    rows: dict[int, int] = {}

    def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        for place, value in enumerate(example):
            if inputs and _same(inputs[0], value):
                size = int(layer.num_embeddings)  # type: ignore[arg-type]  # both kinds have it
                rows[place] = min(rows.get(place, size), size)

    kinds = (nn.Embedding, nn.EmbeddingBag)
    layers = [layer for layer in module.modules() if isinstance(layer, kinds)]
    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        yield rows
    finally:
        for hook in hooks:
            hook.remove()


def _same(given: Tensor, value: Tensor) -> bool:
    """Whether it is the input itself, perhaps reshaped, or the input as another kind of integer."""
    if given.numel() != value.numel() or value.is_floating_point():
        return False
    if given.dtype != value.dtype:
        return torch.equal(given.flatten(), value.flatten().to(given.dtype))
    return given.data_ptr() == value.data_ptr()


def with_value_ranges(
    specs: tuple[TensorSpec, ...], rows: Mapping[int, int]
) -> tuple[tuple[TensorSpec, ...], tuple[str, ...]]:
    """The specs with the ranges that embeddings tell, and a note on each integer input whose range
    the user did not give."""
    found, notes = list(specs), []
    for place, spec in enumerate(specs):
        if spec.dtype == "float32" or spec.value_range:
            continue
        if place in rows:
            found[place] = replace(spec, value_range=(0, rows[place] - 1))
            notes.append(f"input {spec.name}: 0 to {rows[place] - 1}, the rows of its embedding")
        else:
            shape = "x".join(map(str, spec.shape))
            notes.append(
                f"input {spec.name}: only the values 0 and 1 are tried; "
                f"--input {spec.name}:{shape}:{spec.dtype}:LOW..HIGH gives its range"
            )
    return tuple(found), tuple(notes)
