"""Replaces the fused attentions of a model by lowerings, and checks each of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slide_deploy.capture import zeros
from slide_deploy.errors import ConversionError
from slide_deploy.fusion.branches import attention_error
from slide_deploy.lowering.catalog import lowering_named
from slide_deploy.lowering.lowering import ImpossibleLowering
from slide_deploy.models.equivalence import RELATIVE_TOLERANCE
from slide_deploy.models.slide_attention import AttentionConfig, FusedSlideAttention
from slide_deploy.types import TensorSpec

__all__ = ["Choice", "Choose", "always", "attentions", "lower", "resolutions"]

Choose = Callable[[str, AttentionConfig, tuple[int, int]], str]
"""Selects a lowering from an attention's name, its sizes and its map (H, W)."""


@dataclass(frozen=True)
class Choice:
    """The lowering of one attention, with the attention's name and its map (H, W)."""

    name: str
    resolution: tuple[int, int]
    lowering: str


def always(lowering: str) -> Choose:
    """The same lowering for every attention; UnknownName if there is none of this name."""
    known = lowering_named(lowering).name
    return lambda name, config, resolution: known


def lower(
    model: nn.Module, inputs: Sequence[TensorSpec], choose: Choose
) -> tuple[nn.Module, tuple[Choice, ...]]:
    """A copy of a fused `model` with every attention in the lowering that `choose` selects.

    `inputs` are those of the model, to determine each attention's resolution. Raises UnknownName
    for an unknown lowering, ImpossibleLowering if it cannot express the module, and ConversionError
    if its output differs from that of the module. The model itself is not modified.
    """
    lowered = copy.deepcopy(model)
    choices = []
    for name, (module, resolution) in attentions(model, inputs).items():
        choice = Choice(name, resolution, choose(name, module.config, resolution))
        replaced = _checked(module, choice)
        if not name:
            return replaced, (choice,)
        lowered.set_submodule(name, replaced)
        choices.append(choice)
    return lowered, tuple(choices)


def resolutions(model: nn.Module, inputs: Sequence[TensorSpec]) -> dict[str, tuple[int, int]]:
    """Map size (H, W) of each fused attention, in forward order. The model runs on the meta device,
    if possible."""
    if not any(isinstance(module, FusedSlideAttention) for module in model.modules()):
        return {}
    try:
        return _resolutions(copy.deepcopy(model).to("meta"), inputs)
    except RuntimeError:  # a custom module may create tensors on the CPU
        return _resolutions(copy.deepcopy(model), inputs)


def _resolutions(shadow: nn.Module, inputs: Sequence[TensorSpec]) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}

    def record(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            _, height, width, _ = arguments[0].shape
            found[name] = (height, width)

        return hook

    for name, module in shadow.named_modules():
        if isinstance(module, FusedSlideAttention):
            module.register_forward_pre_hook(record(name))
    weight = next(shadow.parameters())
    with torch.no_grad():
        shadow(*(zeros(spec, dtype=weight.dtype, device=weight.device) for spec in inputs))
    return found


def attentions(
    model: nn.Module, inputs: Sequence[TensorSpec]
) -> dict[str, tuple[FusedSlideAttention, tuple[int, int]]]:
    """Each fused attention with its map (H, W), by name, in forward order."""
    found = {}
    for name, resolution in resolutions(model, inputs).items():
        module = model.get_submodule(name)
        assert isinstance(module, FusedSlideAttention)
        found[name] = module, resolution
    return found


def _checked(module: FusedSlideAttention, choice: Choice) -> nn.Module:
    """The chosen lowering of `module`, checked in float64 and rounded once to its dtype."""
    exact = copy.deepcopy(module).double()
    try:
        built = lowering_named(choice.lowering).build(exact)
    except ImpossibleLowering as error:
        raise ImpossibleLowering(
            f"{choice.name or 'the module'} cannot be lowered as {choice.lowering}: "
            f"{error.message}",
            error.hint or "use another --lowering, or auto",
        ) from error
    difference = attention_error(exact, built)
    if not difference <= RELATIVE_TOLERANCE:
        raise ConversionError(
            f"the lowering {choice.lowering} changed the output of {choice.name or 'the module'} "
            f"by {difference:.1e} relative",
            "use another --lowering, and please report it",
        )
    return built.to(module.qkv.weight.dtype).train(module.training)
