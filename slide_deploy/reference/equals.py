"""Modules that compute the same function as a model in another order of operations."""

from __future__ import annotations

from torch import nn

from slide_deploy import registry
from slide_deploy.capture import Capture
from slide_deploy.loading.loader import Model
from slide_deploy.lowering.selection import AUTO, lower_for
from slide_deploy.models.families import simplified
from slide_deploy.quantization.catalog import scheme_named
from slide_deploy.types import DynamicAxes

__all__ = ["equal_modules"]


def equal_modules(model: Model, axes: DynamicAxes, precision: str) -> list[nn.Module]:
    """Modules that compute what the model does in another order, the fused one last.

    Where the precision rounds weights, its lowerings are among them: their weights differ.
    """
    fused = simplified(model.merged)
    lowered: dict[tuple[str, ...], nn.Module] = {}
    if scheme_named(precision).rounded and not axes.any_size:
        for target in registry.target_names():
            module, layers = lower_for(fused, model.inputs, AUTO, target, {})
            lowered[tuple(layer.form for layer in layers)] = module
    captures = [Capture(m, model.inputs, model.outputs, {}) for m in (*lowered.values(), fused)]
    return list(map(model.finish, captures))
