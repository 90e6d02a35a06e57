"""Finds what keeps a model finite that overflows at a precision, by trying it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from slide_deploy.errors import ConversionError
from slide_deploy.lowering.catalog import lowerings
from slide_deploy.lowering.lowering import ImpossibleLowering
from slide_deploy.lowering.replacement import always, lower
from slide_deploy.quantization.catalog import scheme_named
from slide_deploy.reference.run import as_tensors
from slide_deploy.types import TensorSpec

__all__ = ["blocks_in_float32", "finite_lowerings"]


def blocks_in_float32(
    module: nn.Module, names: list[str], inputs: Mapping[str, np.ndarray], precision: str
) -> tuple[str, ...]:
    """The blocks, of the named ones, that must compute in float32 for finite outputs on one input,
    where all else has the `precision`; empty where that is not enough.

    It is not where a value between blocks is too large for the precision itself.
    """
    render = scheme_named(precision).render
    if render is None:
        return ()
    rough = render(module)
    dtype = next(rough.parameters()).dtype
    kept: list[str] = []
    while True:
        finite, first = _run(rough, names, inputs, dtype)
        if finite:
            return tuple(kept)
        if not first or first in kept:
            return ()
        _compute_in_float32(rough.get_submodule(first), module.get_submodule(first), dtype)
        kept.append(first)


def finite_lowerings(
    fused: nn.Module,
    specs: Sequence[TensorSpec],
    inputs: Mapping[str, np.ndarray],
    precision: str,
) -> tuple[str, ...]:
    """The lowerings of the attentions with which a fused module has finite outputs on one input."""
    render = scheme_named(precision).render
    found = []
    for name in (own.name for own in lowerings()):
        try:
            lowered, choices = lower(fused, specs, always(name))
        except (ConversionError, ImpossibleLowering):
            continue
        rough = render(lowered) if render and choices else lowered
        if choices and _run(rough, [], inputs, next(rough.parameters()).dtype)[0]:
            found.append(name)
    return tuple(found)


def _run(
    module: nn.Module, names: list[str], inputs: Mapping[str, np.ndarray], dtype: torch.dtype
) -> tuple[bool, str]:
    """Whether the outputs are finite, and the first named block with an output that is not."""
    broken: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor) and not output.isfinite().all():
                broken.append(name)

        return hook

    hooks = [module.get_submodule(name).register_forward_hook(watch(name)) for name in names]
    try:
        with torch.inference_mode():
            made = module(*as_tensors(inputs, dtype))
    finally:
        for hook in hooks:
            hook.remove()
    outputs = [made] if isinstance(made, torch.Tensor) else list(_tensors(made))
    return all(bool(o.isfinite().all()) for o in outputs), next(iter(broken), "")


def _compute_in_float32(block: nn.Module, original: nn.Module, dtype: torch.dtype) -> None:
    """Let a block compute in float32, with the `original` weights, between inputs and outputs of
    `dtype`."""
    block.float().load_state_dict(original.state_dict())

    def widen(_module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(_cast(value, dtype, torch.float32) for value in given)

    def narrow(_module: nn.Module, _given: object, output: Any) -> Any:
        return _cast(output, torch.float32, dtype)

    block.register_forward_pre_hook(widen)
    block.register_forward_hook(narrow)


def _cast(value: Any, old: torch.dtype, new: torch.dtype) -> Any:
    is_old = isinstance(value, torch.Tensor) and value.dtype == old
    return value.to(new) if is_old else value


def _tensors(made: Any) -> list[torch.Tensor]:
    values = made.values() if isinstance(made, Mapping) else made
    return [value for value in values if isinstance(value, torch.Tensor)]
