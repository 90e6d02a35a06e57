"""Counts the multiply-adds of a module.

Convolutions and matrix products are counted and return zeros; other operations run. The results
equal those of `torch.utils.flop_counter` on the meta device, which is not used because it imports
torch.compile, which takes longer than the rest of `inspect`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from slide_deploy.capture import zeros
from slide_deploy.types import TensorSpec

__all__ = ["count_flops"]


def count_flops(module: nn.Module, inputs: Sequence[TensorSpec]) -> int:
    """Multiply-adds of convolutions and matrix products in one forward pass."""
    device = "meta" if any(weight.is_meta for weight in module.parameters()) else "cpu"
    if device == "meta":  # a model without weights
        module = copy.deepcopy(module).to(device)
    counter = _Counter()
    with torch.no_grad(), _unfused_attention(), counter:
        module(*(zeros(spec, device=device) for spec in inputs))
    return counter.multiply_adds


@contextmanager
def _unfused_attention() -> Iterator[None]:
    """Run torch's attention layers as separate operations, which are counted."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _product(first: Tensor, second: Tensor) -> tuple[int, Tensor]:
    """(…, m, k) times (…, k, n)."""
    columns = second.shape[-1]
    return first.numel() * columns, first.new_zeros((*first.shape[:-1], columns))


def _convolution(x: Tensor, weight: Tensor, *others: Any) -> tuple[int, Tensor]:
    """Each weight is used once per position of the output, or of the input if transposed."""
    of_one = _ATEN.convolution(x[:0], weight, *others).shape[1:]  # shape inference, batch of 0
    transposed = others[4]
    places = x.shape[2:] if transposed else of_one[1:]
    return weight.numel() * len(x) * math.prod(places), x.new_zeros((len(x), *of_one))


def _attention(
    query: Tensor, key: Tensor, value: Tensor, *others: Any, **named: Any
) -> tuple[int, Any]:
    result = _ATEN._scaled_dot_product_flash_attention_for_cpu(query, key, value, *others, **named)
    pairs = math.prod(query.shape[:3]) * key.shape[2]
    return pairs * (query.shape[3] + value.shape[3]), result


_ATEN = torch.ops.aten
_COUNTED: dict[Any, Callable[..., tuple[int, Any]]] = {
    _ATEN.mm: _product,
    _ATEN.bmm: _product,
    _ATEN.addmm: lambda _, first, second, **scales: _product(first, second),
    _ATEN.baddbmm: lambda _, first, second, **scales: _product(first, second),
    _ATEN.convolution: _convolution,
    _ATEN._scaled_dot_product_flash_attention_for_cpu: _attention,
}


class _Counter(TorchDispatchMode):
    """Adds up the multiply-adds of the operations in its context."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.multiply_adds: int = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False, because True would import torch.compile."""
        return False

    def __torch_dispatch__(
        self,
        operation: Any,
        types: Any,
        arguments: tuple[Any, ...] = (),
        keywords: Mapping[str, Any] | None = None,
    ) -> Any:
        counted = _COUNTED.get(operation.overloadpacket)
        if counted is None:
            return operation(*arguments, **(keywords or {}))
        count, result = counted(*arguments, **(keywords or {}))
        self.multiply_adds += count
        return result
