"""One forward pass of a module: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from slide_deploy.types import TensorSpec

__all__ = ["as_array", "as_tensors", "run_module"]


def as_tensors(inputs: Mapping[str, np.ndarray], dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """The inputs in order, those of floating point in the module's own type."""
    for value in map(torch.from_numpy, inputs.values()):
        yield value.to(dtype) if value.is_floating_point() else value


def run_module(
    module: nn.Module, outputs: tuple[TensorSpec, ...], inputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """One forward pass in the module's own precision; arrays in, arrays out, by name."""
    dtype = next(module.parameters()).dtype
    with torch.inference_mode():
        values: Any = module(*as_tensors(inputs, dtype))
    values = (values,) if isinstance(values, torch.Tensor) else values
    return {spec.name: as_array(value) for spec, value in zip(outputs, values, strict=True)}


def as_array(value: torch.Tensor) -> np.ndarray:
    """The values as they are; numpy has no bfloat16, which float32 holds exactly."""
    return (value.float() if value.dtype is torch.bfloat16 else value).numpy()
