"""Dense prediction: a model whose outputs are its stages' maps, as detectors take them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from slide_deploy.errors import UsageError
from slide_deploy.types import TensorSpec

__all__ = ["StageMaps", "features_only", "stage_specs", "unused_weights"]


class StageMaps:
    """Stands in front of a model's class: what `forward` gives are the maps of all stages.

    A class and not a module around the model, so that all names inside stay the model's own:
    weights, traced blocks and exported layers are called alike with a classifier and without.
    """

    if TYPE_CHECKING:

        def forward_features(self, x: Tensor) -> tuple[Tensor, ...]: ...

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.forward_features(x)


def features_only(module: nn.Module, name: str) -> nn.Module:
    """A copy of `module` that gives its stages' maps; UsageError where it has none to give."""
    if not hasattr(module, "forward_features"):
        raise UsageError(
            f"{name} has no stages whose maps could be its outputs", "leave --features out"
        )
    changed = copy.copy(module)
    kind = type(module)
    changed.__class__ = type(f"{kind.__name__}Features", (StageMaps, kind), {})
    return changed


def stage_specs(module: nn.Module, inputs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """`stage1` … `stageN` with the shapes that a run on shapes alone gives."""
    with torch.no_grad():
        maps = _maps(copy.deepcopy(module).to("meta"), inputs)
    return tuple(TensorSpec(f"stage{n}", tuple(m.shape)) for n, m in enumerate(maps, start=1))


def unused_weights(module: nn.Module, inputs: tuple[TensorSpec, ...]) -> frozenset[str]:
    """Weights that no map depends on, such as a classifier's: a detector's file lacks them."""
    shapes = copy.deepcopy(module).to("meta").requires_grad_(True)
    torch.stack([m.sum() for m in _maps(shapes, inputs)]).sum().backward()
    return frozenset(name for name, weight in shapes.named_parameters() if weight.grad is None)


def _maps(shapes: nn.Module, inputs: tuple[TensorSpec, ...]) -> tuple[Tensor, ...]:
    maps: Any = shapes(*(torch.empty(tuple(map(int, s.shape)), device="meta") for s in inputs))
    return tuple(maps)
