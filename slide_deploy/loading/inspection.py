"""What a checkpoint turned out to be: sizes, cost, and what its shift paths have learned."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from slide_deploy.capture import Capture
from slide_deploy.fusion.branches import ShiftReport, shift_reports
from slide_deploy.loading.loader import Model
from slide_deploy.types import TensorSpec

__all__ = ["Inspection", "count_flops", "count_parameters", "inspect"]


@dataclass(frozen=True)
class Inspection:
    """Facts about a loaded model. `flops` counts multiply-adds of one image, as papers do,
    of the fused model; `parameters` those of the training form."""

    model: Model
    config: Mapping[str, Any]
    parameters: int
    flops: int
    shifts: tuple[ShiftReport, ...]


def inspect(model: Model) -> Inspection:
    """Gather the facts; the model runs on shapes alone, so this is quick at any size."""
    merged = model.merged
    fused = model.finish(Capture(merged, model.inputs, model.outputs, {}))
    return Inspection(
        model=model,
        config=dataclasses.asdict(model.config),
        parameters=count_parameters(model.module),
        flops=count_flops(fused, model.inputs),
        shifts=shift_reports(merged),
    )


def count_parameters(module: nn.Module) -> int:
    """Numbers in all parameters, the frozen one-hot kernels included."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_flops(module: nn.Module, inputs: tuple[TensorSpec, ...]) -> int:
    """Multiply-adds of convolutions and matrix products in one forward pass."""
    # The counter hooks gradients of what modules pass on, and there are none here.
    shapes = copy.deepcopy(module).requires_grad_(False)
    try:
        return _count(shapes.to("meta"), inputs, "meta")
    except RuntimeError:  # a module of somebody's own may make tensors on the processor
        return _count(copy.deepcopy(module).requires_grad_(False), inputs, "cpu")


def _count(module: nn.Module, inputs: tuple[TensorSpec, ...], device: str) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*(_zeros(spec, device) for spec in inputs))
    return int(counter.get_total_flops()) // 2


def _zeros(spec: TensorSpec, device: str) -> torch.Tensor:
    shape, dtype = tuple(map(int, spec.shape)), getattr(torch, spec.dtype)
    return torch.zeros(shape, dtype=dtype, device=device)
