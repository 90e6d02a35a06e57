"""Outputs of the model's blocks, which a failure is traced to."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from slide_deploy.parity.block_trace import BlockReference
from slide_deploy.parity.metrics import noise_floor
from slide_deploy.quantization.catalog import scheme_named
from slide_deploy.reference.run import as_array, as_tensors

__all__ = ["block_references"]


def block_references(
    module: nn.Module,
    names: list[str],
    inputs: Mapping[str, np.ndarray],
    precision: str,
) -> tuple[BlockReference, ...]:
    """Outputs of the named modules on one input in float64, with the noise of `precision`."""
    exact = _block_outputs(copy.deepcopy(module).double(), names, inputs)
    render = scheme_named(precision).render
    rough = _block_outputs(render(module) if render else module, names, inputs)
    return tuple(
        BlockReference(name, value, noise_floor(rough[name], value))
        for name, value in exact.items()
    )


def _block_outputs(
    module: nn.Module, names: list[str], inputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Output of each named module in one forward pass, in the order they ran."""
    found: dict[str, np.ndarray] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor):
                found[name] = as_array(output).copy()

        return hook

    hooks = [module.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        dtype = next(module.parameters()).dtype
        with torch.inference_mode():
            module(*as_tensors(inputs, dtype))
    finally:
        for hook in hooks:
            hook.remove()
    return found
