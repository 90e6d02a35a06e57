"""SmoothQuant: channels with large activations leave a part of their range to the weights.

Source: Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large
Language Models", ICML 2023, arXiv 2211.10438. Between a LayerNorm and the products that read it,
the activations of channel j are divided by s_j = max|X_j|^α / max|W_j|^(1−α), and the weights of
this channel multiplied. Here s_j is the next power of two, so that the smoothed model computes
exactly what the model does, and the last digits of a measurement do not change it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from slide_deploy.errors import ConversionError
from slide_deploy.models.equivalence import RELATIVE_TOLERANCE, relative_error

__all__ = ["norms_before_products", "smoothed"]

ATEN = torch.ops.aten
# The number of axes after that of the channels in the input of a product. In its weights the
# channels are the second axis.
PRODUCTS = {ATEN.linear.default: 0, ATEN.conv2d.default: 2}
RESHAPES = {ATEN.view.default, ATEN.reshape.default, ATEN.flatten.using_ints}
COPIES = {ATEN.contiguous.default, ATEN.clone.default, ATEN.dropout.default}


@torch.no_grad()
def smoothed(module: nn.Module, runs: Sequence[Sequence[Tensor]], alpha: float) -> nn.Module:
    """A copy of a fused module in float32 with smoothed activations, equal in its outputs.

    `runs` are the inputs of each run on the calibration set; `alpha`, between 0 and 1, is the part
    of the range that goes to the weights. Raises ConversionError where the outputs differ.
    """
    pairs = norms_before_products(module, runs[0])
    exact, copied = copy.deepcopy(module).double(), copy.deepcopy(module)
    largest = _largest_activations(exact, pairs, runs)
    for name, readers in pairs.items():
        # With the channels last, as those of the norm.
        weights = [copied.get_parameter(f"{own}.weight").transpose(1, -1) for own in readers]
        parameters = list(copied.get_submodule(name).parameters())
        factors = _factors(largest[name], _largest_weights(weights), alpha)
        factors = _reversible(factors.to(weights[0].dtype), parameters, weights)
        for parameter in parameters:
            parameter.div_(factors)
        for weight in weights:
            weight.mul_(factors)
    example = [_double(tensor) for tensor in runs[0]]
    made = zip(_outputs(exact, example), _outputs(copied.double(), example), strict=True)
    error = max(relative_error(*pair) for pair in made)
    if not error <= RELATIVE_TOLERANCE:
        raise ConversionError(
            f"SmoothQuant changed an output of the model by {error:.1e} relative",
            "please report it, with the sizes of the model; --smooth 0 leaves it out",
        )
    return copied.to(next(module.parameters()).dtype)


def norms_before_products(
    module: nn.Module, example: Sequence[Tensor]
) -> dict[str, tuple[str, ...]]:
    """The linear maps and convolutions that read each LayerNorm, by the names of the modules; only
    of LayerNorms that nothing else reads."""
    program = torch.export.export(module, tuple(example))
    names = program.graph_signature.inputs_to_parameters
    modules = dict(module.named_modules())

    def owner(argument: Any, *kinds: type[nn.Module]) -> str:
        """The module whose weight this is, if nothing else reads the weight."""
        name, _, field = names.get(getattr(argument, "name", ""), "").rpartition(".")
        fits = field == "weight" and len(argument.users) == 1
        return name if fits and isinstance(modules.get(name), kinds) else ""

    found = {}
    for node in program.graph.nodes:
        if node.target is not ATEN.layer_norm.default or len(node.args[1]) != 1:
            continue
        norm = owner(node.args[2], nn.LayerNorm) if len(node.args) > 2 else ""
        try:
            readers = list(_readers(node, len(_shape(node)) - 1, node.args[1][0]))
        except LookupError:
            continue
        products = tuple(owner(reader.args[1], nn.Linear, nn.Conv2d) for reader in readers)
        if norm and products and all(products):
            found[norm] = products
    return found


def _readers(node: Any, axis: int, channels: int) -> Iterator[Any]:
    """The products that read a tensor in which each run of so many indices of `axis` are the
    channels; LookupError where another operator reads it."""
    shape = _shape(node)
    for user in node.users:
        if user.target in PRODUCTS and user.args[0] is node:
            grouped = len(user.args) > 6 and user.args[6] != 1
            in_place = axis == len(shape) - 1 - PRODUCTS[user.target] and shape[axis] == channels
            if grouped or not in_place:
                raise LookupError
            yield user
        else:
            yield from _readers(user, _moved(user, axis, shape, channels), channels)


def _moved(user: Any, axis: int, shape: tuple[int, ...], channels: int) -> int:
    """The axis of the channels after an operator that moves values; LookupError for others."""
    target, arguments, rank = user.target, user.args[1:], len(shape)
    if target in COPIES:
        return axis
    if target in RESHAPES:
        return _reshaped(axis, shape, _shape(user), channels)
    if target is ATEN.permute.default:
        order = [int(own) % rank for own in arguments[0]]
        return order.index(axis)
    if target is ATEN.transpose.int:
        first, second = (own % rank for own in arguments)
        return int({first: second, second: first}.get(axis, axis))
    if target is ATEN.roll.default and axis not in [own % rank for own in arguments[1]]:
        return axis
    if target is ATEN.pad.default and axis < rank - len(arguments[0]) // 2:
        return axis
    raise LookupError


def _reshaped(axis: int, before: tuple[int, ...], after: tuple[int, ...], channels: int) -> int:
    inner = math.prod(before[axis + 1 :])
    for place, size in enumerate(after):
        if size % channels == 0 and math.prod(after[place + 1 :]) == inner:
            return place
    raise LookupError


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)


def _largest_activations(
    exact: nn.Module, norms: Iterable[str], runs: Sequence[Sequence[Tensor]]
) -> dict[str, Tensor]:
    """max|X_j| of each channel of the outputs of these LayerNorms over all runs."""
    largest: dict[str, Tensor] = {}

    def record(name: str, made: Tensor) -> None:
        own = made.abs().flatten(0, -2).amax(dim=0)
        largest[name] = torch.maximum(largest.get(name, own), own)

    hooks = [
        exact.get_submodule(name).register_forward_hook(
            lambda module, inputs, made, name=name: record(name, made)
        )
        for name in norms
    ]
    for run in runs:
        exact(*map(_double, run))
    for hook in hooks:
        hook.remove()
    return largest


def _largest_weights(weights: Iterable[Tensor]) -> Tensor:
    """max|W_j| of each input channel over all weights that read it."""
    return torch.stack([own.double().abs().flatten(0, -2).amax(0) for own in weights]).amax(0)


def _factors(activations: Tensor, weights: Tensor, alpha: float) -> Tensor:
    """s_j of each channel, a power of two; 1 where the channel is zero throughout."""
    exponents = (alpha * activations.log2() - (1 - alpha) * weights.log2()).round()
    return torch.exp2(torch.where(exponents.isfinite(), exponents, 0.0))


def _reversible(factors: Tensor, divided: Iterable[Tensor], multiplied: Iterable[Tensor]) -> Tensor:
    """The factors, and 1 for the channels that have values beyond the range of the type with it."""
    kept = [(own / factors * factors == own).reshape(-1, len(factors)).all(0) for own in divided]
    kept += [(own * factors / factors == own).flatten(0, -2).all(0) for own in multiplied]
    return torch.where(torch.stack(kept).all(0), factors, 1.0)


def _outputs(module: nn.Module, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    made = module(*inputs)
    return (made,) if isinstance(made, Tensor) else tuple(made)


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor
