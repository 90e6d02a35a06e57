"""Describes a loaded model: sizes, cost, and learned shifts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from slide_deploy.capture import Capture
from slide_deploy.fusion.branches import ShiftReport, shift_reports
from slide_deploy.loading.flops import count_flops
from slide_deploy.loading.loader import Model

__all__ = ["Inspection", "count_parameters", "inspect"]


@dataclass(frozen=True)
class Inspection:
    """Facts about a loaded model. `flops` are the multiply-adds of the fused model on one image,
    `parameters` the parameters of the unfused model."""

    model: Model
    config: Mapping[str, Any]
    parameters: int
    flops: int
    shifts: tuple[ShiftReport, ...]


def inspect(model: Model) -> Inspection:
    """Describe a model. It runs on the meta device, so this is fast at any size."""
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
    """The number of parameters, including the frozen one-hot kernels."""
    return sum(parameter.numel() for parameter in module.parameters())
