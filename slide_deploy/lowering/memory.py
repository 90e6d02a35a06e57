"""Estimates the peak memory of a module from its operations, without computing anything.

The module runs once on the meta device. Each output of an operation is recorded with its storage,
so that a view needs no memory. A storage is alive from the operation that creates it to the last
one that reads it. The peak is the largest sum of live storages, including the module's input, and
excluding weights and allocations inside kernels. A runtime that fuses operations needs less; one
that keeps all values needs more.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from slide_deploy.lowering.catalog import lowerings
from slide_deploy.lowering.lowering import ImpossibleLowering, Lowering
from slide_deploy.models.slide_attention import AttentionConfig, FusedSlideAttention

__all__ = ["low_memory", "peak_bytes"]


def low_memory(name: str, config: AttentionConfig, resolution: tuple[int, int]) -> str:
    """Name of the lowering with the smallest peak memory; a `Choose` function for `lower`."""
    with torch.device("meta"):
        fused = FusedSlideAttention(config)
    shape = (1, *resolution, config.dim)
    return min(_peaks(fused, shape, lowerings()))[1]


def _peaks(
    fused: FusedSlideAttention, shape: tuple[int, ...], known: Iterable[Lowering]
) -> Iterator[tuple[int, str]]:
    for lowering in known:
        try:
            yield peak_bytes(lowering.build(fused), shape), lowering.name
        except ImpossibleLowering:
            continue


def peak_bytes(module: nn.Module, shape: tuple[int, ...]) -> int:
    """Peak memory in bytes while `module` runs on an input of this shape."""
    shadow = copy.deepcopy(module).to("meta")
    weights = [*shadow.parameters(), *shadow.buffers()]
    dtype = next((w.dtype for w in weights if w.is_floating_point()), torch.float32)
    tape = _Tape(weights)
    x = torch.empty(shape, dtype=dtype, device="meta")
    tape.write([x])
    with torch.no_grad(), tape:
        result = shadow(x)
    tape.read(tree_leaves(result))
    return tape.peak()


class _Tape(TorchDispatchMode):
    """Records when each storage is created and read, except those of `weights`."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # References, so that the identity of a storage is not reused.
        self.held: dict[int, torch.UntypedStorage] = {}
        self.born: dict[int, int] = {}
        self.last: dict[int, int] = {}
        self.step = 0
        self.weights = {self._identity(weight) for weight in weights}

    def __torch_dispatch__(
        self,
        operation: Any,
        types: Any,
        arguments: tuple[Any, ...] = (),
        keywords: Mapping[str, Any] | None = None,
    ) -> Any:
        self.step += 1
        self.read(tree_leaves((arguments, keywords)))
        result = operation(*arguments, **(keywords or {}))
        self.write(tree_leaves(result))
        return result

    def read(self, values: Iterable[Any]) -> None:
        for value in values:
            if isinstance(value, Tensor) and (key := self._identity(value)) in self.born:
                self.last[key] = self.step

    def write(self, values: Iterable[Any]) -> None:
        for value in values:
            if not isinstance(value, Tensor):
                continue
            key = self._identity(value)
            if key not in self.weights:
                self.born.setdefault(key, self.step)
                self.last[key] = self.step

    def peak(self) -> int:
        return max(
            sum(
                self.held[key].nbytes()
                for key, born in self.born.items()
                if born <= step <= self.last[key]
            )
            for step in range(self.step + 1)
        )

    def _identity(self, value: Tensor) -> int:
        storage = value.untyped_storage()
        key: int = storage._cdata
        self.held[key] = storage
        return key
