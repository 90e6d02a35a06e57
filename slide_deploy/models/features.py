"""Models whose outputs are the feature maps of their stages, for detectors and segmenters."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from slide_deploy.errors import UsageError
from slide_deploy.types import TensorSpec

__all__ = ["StageMaps", "features_only", "stage_specs", "unused_weights"]


class StageMaps:
    """A base class that precedes a model's class: `forward` returns the maps of all stages.

    It does not wrap the model in another module, so that weights, blocks and exported layers have
    the same names with and without a classifier.
    """

    if TYPE_CHECKING:

        def forward_features(self, x: Tensor) -> tuple[Tensor, ...]: ...

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.forward_features(x)


def features_only(module: nn.Module, name: str) -> nn.Module:
    """A copy of `module` that returns its stages' maps; UsageError if it has no stages."""
    if not hasattr(module, "forward_features"):
        raise UsageError(f"{name} has no stages whose maps could be its outputs", "omit --features")
    changed = copy.copy(module)
    kind = type(module)
    changed.__class__ = type(f"{kind.__name__}Features", (StageMaps, kind), {})
    return changed


def stage_specs(module: nn.Module, inputs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """Specs of `stage1` … `stageN`; the shapes are determined on the meta device."""
    with torch.no_grad():
        maps = _maps(copy.deepcopy(module).to("meta"), inputs)
    return tuple(TensorSpec(f"stage{n}", tuple(m.shape)) for n, m in enumerate(maps, start=1))


def unused_weights(module: nn.Module, inputs: tuple[TensorSpec, ...]) -> frozenset[str]:
    """Weights that no map depends on, such as a classifier's, which a detector's file may lack."""
    shapes = copy.deepcopy(module).to("meta").requires_grad_(True)
    torch.stack([m.sum() for m in _maps(shapes, inputs)]).sum().backward()
    return frozenset(name for name, weight in shapes.named_parameters() if weight.grad is None)


def _maps(shapes: nn.Module, inputs: tuple[TensorSpec, ...]) -> tuple[Tensor, ...]:
    maps: Any = shapes(*(torch.empty(tuple(map(int, s.shape)), device="meta") for s in inputs))
    return tuple(maps)
