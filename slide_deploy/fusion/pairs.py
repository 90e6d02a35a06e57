"""Finds and merges pairs of shift convolutions in any module by their structure.

The pattern is a sum of two depthwise convolutions of the same value with the same geometry, one of
which has one-hot kernels: the deformed shift of Slide Attention (arXiv 2304.04237). Pairs that
cannot be merged exactly are not changed, and reported with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from slide_deploy.fusion.attention_parameters import is_one_hot
from slide_deploy.fusion.branches import fuse
from slide_deploy.fusion.equivalence import beyond_tolerance, difference
from slide_deploy.fusion.graph import (
    arguments_of,
    drop_unused,
    first_inputs,
    name_sizes,
    operator_name,
    pass_tensors,
    stored_tensor,
)
from slide_deploy.models.equivalence import noise, relative_error
from slide_deploy.models.slide_attention import SlideAttention
from slide_deploy.utils.quiet import quiet
from slide_deploy.utils.text import first_line

__all__ = ["Match", "fuse_by_structure"]

_ATEN = torch.ops.aten
_CONVOLUTIONS = (_ATEN.conv2d.default, _ATEN.conv2d.padding, _ATEN.convolution.default)
_ADDITIONS = (_ATEN.add.Tensor, _ATEN.add_.Tensor)
_GEOMETRY = ("stride", "padding", "dilation", "groups")


@dataclass(frozen=True)
class Match:
    """An attention module, a pair of shift convolutions, or a single one, by its name in the
    module."""

    name: str
    action: Literal["matched", "fused", "left"]
    why: str


def fuse_by_structure(
    module: nn.Module,
    example: tuple[Tensor, ...],
    dynamic_shapes: Any = None,
) -> tuple[nn.Module, tuple[Match, ...]]:
    """A module in which every shift pair of `module` is merged, and the matches.

    Slide Attention modules of this package are merged by class first. Other pairs are merged in
    the module's torch.export graph, which is valid for inputs like `example` and `dynamic_shapes`,
    an argument of torch.export. A module without such a pair is returned unchanged. Each pair, and
    the whole module, must agree within 1e-12 in float64.
    """
    known = tuple(
        Match(name, "fused", "Slide Attention of this package")
        for name, own in module.named_modules()
        if isinstance(own, SlideAttention)
    )
    base = fuse(module) if known else module
    try:
        with torch.no_grad(), quiet():
            program = torch.export.export(base, example, dynamic_shapes=dynamic_shapes)
        exported = program.module(check_guards=False)
    except Exception as error:  # of the tracer or the module
        why = f"torch.export cannot capture it: {first_line(error)}"
        return base, (*known, Match("the module", "left", why))
    graph = fx.GraphModule(exported, exported.graph)
    name_sizes(graph)
    pass_tensors(graph)
    found = _merge_pairs(graph)
    if not any(entry.action == "fused" for entry in found):
        return base, (*known, *found)
    if problem := difference(base, graph, example):
        found = [replace(entry, action="left", why=problem) for entry in found]
        return base, (*known, *found)
    reference = next(iter(base.parameters()))
    for parameter in graph.parameters():
        # Until here the sums are float64, so that they are rounded once.
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(reference.dtype)
    return graph.train(module.training).requires_grad_(False), (*known, *found)


@dataclass(frozen=True)
class _Conv:
    """A depthwise convolution in a graph. `weight` and `bias` are names in the module."""

    node: fx.Node
    name: str
    source: fx.Node
    weight: str
    bias: str | None
    geometry: tuple[Any, ...]


def _merge_pairs(graph: fx.GraphModule) -> list[Match]:
    """Merge pairs in place, with float64 sums."""
    convolutions = {node: conv for node in graph.graph.nodes if (conv := _depthwise(graph, node))}
    one_hot = {c.node for c in convolutions.values() if is_one_hot(stored_tensor(graph, c.weight))}
    merged: dict[frozenset[tuple[str, str | None]], str] = {}
    found: list[Match] = []
    met: set[fx.Node] = set()
    for node in list(graph.graph.nodes):
        if node.target not in _ADDITIONS or not _adds_two(node, convolutions):
            continue
        first, second = (convolutions[argument] for argument in node.args[:2])
        met |= {first.node, second.node}
        name = f"{first.name} + {second.name}"
        if why := _obstacle(graph, node, first, second, one_hot):
            found.append(Match(name, "left", why))
            continue
        key = frozenset((conv.weight, conv.bias) for conv in (first, second))
        if key not in merged:
            merged[key] = _add_sum(graph, first, second, len(merged))
        if why := _pair_difference(graph, merged[key], first, second):
            found.append(Match(name, "left", why))
            continue
        _replace(graph, node, first, merged[key])
        found.append(Match(name, "fused", "one convolution, equal within 1e-12 in float64"))
    for conv in convolutions.values():
        if conv.node in one_hot - met:
            found.append(Match(conv.name, "left", _loose_end(conv.node, convolutions)))
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    drop_unused(graph)
    graph.recompile()
    return list(dict.fromkeys(found))


def _adds_two(node: fx.Node, convolutions: dict[fx.Node, _Conv]) -> bool:
    return all(argument in convolutions for argument in node.args[:2])


def _depthwise(graph: fx.GraphModule, node: fx.Node) -> _Conv | None:
    """The node as a depthwise convolution with stored weights, or None."""
    if node.target not in _CONVOLUTIONS:
        return None
    given = arguments_of(node)
    weight, bias = given["weight"], given["bias"]
    stored = all(value is None or value.op == "get_attr" for value in (weight, bias))
    if not stored or given.get("transposed"):
        return None
    kernel = stored_tensor(graph, str(weight.target))
    if kernel.ndim != 4 or kernel.shape[1] != 1:
        return None
    geometry = (*(_sizes(given[key], kernel) for key in _GEOMETRY), tuple(kernel.shape))
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    own = str(weight.target).rpartition(".")[0]
    name = str(stack[-1][0]) if stack and "Conv" in str(stack[-1][1]) else own
    bias_name = None if bias is None else str(bias.target)
    return _Conv(node, name, given["input"], str(weight.target), bias_name, geometry)


def _sizes(value: Any, kernel: Tensor) -> Any:
    """One number per axis; "same" is not converted for even kernels."""
    if value == "valid":
        return (0, 0)
    if isinstance(value, str):
        return tuple(side // 2 for side in kernel.shape[2:]) if kernel.shape[2] % 2 else value
    if isinstance(value, (list, tuple)):
        return tuple(value) * (2 if len(value) == 1 else 1)
    return value


def _obstacle(
    graph: fx.GraphModule, node: fx.Node, first: _Conv, second: _Conv, one_hot: set[fx.Node]
) -> str:
    """The reason why two added convolutions cannot be merged; empty if they can."""
    if not {first.node, second.node} & one_hot:
        return "neither has one-hot kernels, so it is not a shift"
    names = (*_GEOMETRY, "weight shape")
    pairs = zip(names, first.geometry, second.geometry, strict=True)
    differing = [f"{name} {a} and {b}" for name, a, b in pairs if a != b]
    if first.source is not second.source:
        padded = [c.name for c in (first, second) if "pad" in str(c.source.target)]
        if padded:
            return f"{padded[0]} has another padding_mode than zeros"
        return "they have different inputs"
    if differing:
        return f"the geometries differ: {', '.join(differing)}"
    if arguments_of(node)["alpha"] != 1:
        return "the sum is weighted (alpha)"
    if node.target is _ATEN.add_.Tensor and len(first.node.users) > 1:
        return "the sum overwrites a value that is used elsewhere"
    return ""


def _loose_end(node: fx.Node, convolutions: dict[fx.Node, _Conv]) -> str:
    """The reason why a one-hot convolution has no partner."""
    for user in node.users:
        if user.target not in _ADDITIONS:
            continue
        for other in (a for a in user.args[:2] if isinstance(a, fx.Node) and a is not node):
            behind = next((n for n in first_inputs(other) if n in convolutions), None)
            if behind is not None:
                between = operator_name(other)
                return f"{between} is between {convolutions[behind].name} and the addition"
        return "the other summand is not a depthwise convolution"
    for user in node.users:
        after = next((n for n in user.users if n.target in _ADDITIONS), None)
        if after is not None:
            return f"{operator_name(user)} is between it and the addition"
    return "its output is not added to anything"


def _add_sum(graph: fx.GraphModule, first: _Conv, second: _Conv, number: int) -> str:
    """Store the summed weights in float64; returns the name of their module."""
    name = f"fused_shift_{number}"
    holder = nn.Module()
    biases = [stored_tensor(graph, bias).double() for bias in (first.bias, second.bias) if bias]
    weights = [stored_tensor(graph, conv.weight).double() for conv in (first, second)]
    holder.weight = nn.Parameter(weights[0] + weights[1], requires_grad=False)
    if biases:
        holder.bias = nn.Parameter(torch.stack(biases).sum(0), requires_grad=False)
    graph.add_submodule(name, holder)
    return name


def _pair_difference(graph: fx.GraphModule, name: str, first: _Conv, second: _Conv) -> str:
    """A description of the difference of the merged convolution from the pair; empty if equal."""
    shape = [int(size) if isinstance(size, int) else 2 for size in first.source.meta["val"].shape]
    x = noise(shape)
    summed = graph.get_submodule(name)

    def run(conv: _Conv, weight: Tensor, bias: Tensor | None) -> Tensor:
        given = {**arguments_of(conv.node), "input": x, "weight": weight, "bias": bias}
        assert isinstance(conv.node.target, torch._ops.OpOverload)
        result: Tensor = conv.node.target(**given)
        return result

    def apart(conv: _Conv) -> Tensor:
        bias = None if conv.bias is None else stored_tensor(graph, conv.bias).double()
        return run(conv, stored_tensor(graph, conv.weight).double(), bias)

    with torch.no_grad():
        expected = apart(first) + apart(second)
        together = run(first, summed.get_parameter("weight"), getattr(summed, "bias", None))
    return beyond_tolerance(relative_error(expected, together), "merging the pair")


def _replace(graph: fx.GraphModule, node: fx.Node, conv: _Conv, name: str) -> None:
    has_bias = hasattr(graph.get_submodule(name), "bias")
    given = arguments_of(conv.node)
    with graph.graph.inserting_before(node):
        given["weight"] = graph.graph.get_attr(f"{name}.weight")
        given["bias"] = graph.graph.get_attr(f"{name}.bias") if has_bias else None
        fused = graph.graph.call_function(conv.node.target, tuple(given.values()))  # type: ignore[arg-type]  # an OpOverload is callable
    fused.meta = dict(node.meta)
    node.replace_all_uses_with(fused)
    graph.graph.erase_node(node)
