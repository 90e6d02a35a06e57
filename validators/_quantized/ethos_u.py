"""Takes a fake-quantized graph of ATen operators apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slide_deploy.errors import ArtifactError
from slide_deploy.ethos_u.compiler import compile_spec
from slide_deploy.ethos_u.devices import Device
from slide_deploy.ethos_u.files import GRAPH, compiled_devices
from slide_deploy.ethos_u.graph import (
    DEQUANTIZE,
    QUANTIZE,
    constant,
    converts,
    example,
    interface_of,
    load_graph,
    numbers,
    packet_of,
    save_graph,
    specs_of,
    tensors,
)
from slide_deploy.protocols import Arrays, QuantizedTensor

if TYPE_CHECKING:
    from torch.fx import GraphModule

    Node = Any  # arguments of torch.fx.Node have a type too wide to be of use

__all__ = ["is_quantized", "take_apart"]

BIAS = "int32"

# Operators that move values or choose some: Arm's quantizer may give their inputs and outputs one
# range.
MOVING = (
    *("adaptive_avg_pool2d", "amax", "amin", "avg_pool2d", "max_pool2d", "mean"),
    *("cat", "chunk", "clone", "contiguous", "expand", "flatten", "getitem", "permute", "reshape"),
    *("select", "slice", "split", "squeeze", "transpose", "unsqueeze", "view", "_unsafe_view"),
    *("index_select", "roll", "repeat", "split_with_sizes", "constant_pad_nd", "pad", "unfold"),
)


def is_quantized(graph: GraphModule) -> bool:
    """Whether a graph has an operator that quantizes."""
    return any(str(node.target) == QUANTIZE for node in graph.graph.nodes)


def take_apart(
    path: Path, program: Path, restored: Path, runs: Iterable[Arrays]
) -> Iterator[QuantizedTensor]:
    """See `Runtime.take_apart`. The weights in float32 are those of the float graph, after the
    steps of Arm's quantizer that replace operators, such as LayerNorm, by simpler ones. Whether
    these steps are right shows where the graph without quantization runs.

    Raises ArtifactError where `path` quantizes what the float graph does not have, or dequantizes
    otherwise than it quantizes.
    """
    graph = load_graph(path / GRAPH)
    simpler = _simplified(load_graph(program / GRAPH), compiled_devices(path)[0])
    readers = [n for n in graph.graph.nodes if str(n.target).startswith(DEQUANTIZE)]
    weights = {node: _original(node, simpler) for node in readers if node.args[0].op == "get_attr"}
    for node in readers:
        if node not in weights:
            _refuse_other_range(node)
    yield from [_weights(node, graph, own) for node, own in weights.items()]
    quantizers = [node for node in graph.graph.nodes if str(node.target) == QUANTIZE]
    ranges = [
        (_activation(node), [_source(member).name for member in group])
        for group in _groups(quantizers)
        for node in group
    ]
    plain = _without_quantization(graph, weights)
    restored.mkdir()
    save_graph(plain, restored / GRAPH, interface_of(path / GRAPH))
    names = [spec.name for spec in specs_of(path / GRAPH)[0]]
    observed = _observed(plain, names, {name for _, group in ranges for name in group}, runs)
    for tensor, group in ranges:
        lows, highs = zip(*(observed[name] for name in group), strict=True)
        yield replace(tensor, observed=(min(lows), max(highs)))


def _simplified(floats: GraphModule, device: Device) -> GraphModule:
    """The float graph as Arm's quantizer prepares it for quantization."""
    import torch
    from executorch.backends.arm.quantizer import (
        EthosUQuantizer,
        get_symmetric_quantization_config,
    )

    quantizer = EthosUQuantizer(compile_spec(device))
    quantizer.set_global(get_symmetric_quantization_config())
    exported = torch.export.export(floats, example(floats))
    simpler: GraphModule = quantizer.transform_for_annotation(exported.module(check_guards=False))
    return simpler


def _original(node: Node, simpler: GraphModule) -> np.ndarray:
    """The constant that the same operator of the float graph takes in place of these integers."""
    user = next(iter(node.users))
    alike = next((own for own in simpler.graph.nodes if own.name == user.name), None)
    place = list(user.args).index(node)
    found = alike.args[place] if alike is not None and len(alike.args) > place else None
    value = constant(simpler, found) if found and found.op == "get_attr" else None
    if value is None or value.shape != node.args[0].meta["value"].shape:
        raise ArtifactError(
            f"the float32 graph has no constant in the place of {node.args[0].name}",
            "verify it with the options that it was exported with",
        )
    return value.detach().numpy()


def _refuse_other_range(node: Node) -> None:
    source = node.args[0]
    if str(source.target) != QUANTIZE or source.args[1:] != node.args[1:]:
        raise ArtifactError(
            f"{node.name} is dequantized with another scale or zero point than it was quantized "
            "with, or was not quantized",
            "export it again",
        )


def _weights(node: Node, graph: GraphModule, weights: np.ndarray) -> QuantizedTensor:
    integers = node.args[0].meta["value"].numpy()
    channels = "per_channel" in str(node.target)
    scale, zero_point, *axis, low, high, _ = node.args[1:]
    return QuantizedTensor(
        name=node.args[0].name,
        kind=integers.dtype.name,
        low=int(low),
        high=int(high),
        scale=numbers(scale),
        zero_point=numbers(zero_point),
        axis=int(axis[0]) if channels else 0,
        integers=integers,
        weights=weights,
        product=_product(node) if integers.dtype.name == BIAS else None,
    )


def _product(bias: Node) -> np.ndarray:
    """The product of the scales of what the operator of a bias multiplies."""
    value, weights = next(iter(bias.users)).args[:2]
    return np.asarray(numbers(value.args[1]) * numbers(weights.args[1]))


def _activation(node: Node) -> QuantizedTensor:
    scale, zero_point, low, high, kind = node.args[1:]
    return QuantizedTensor(
        name=_source(node).name,
        kind=str(kind).removeprefix("torch."),
        low=int(low),
        high=int(high),
        scale=numbers(scale),
        zero_point=numbers(zero_point),
    )


def _source(node: Node) -> Node:
    """What a quantizing node quantizes, without the quantization of that."""
    found = node.args[0]
    while converts(found):
        found = found.args[0]
    return found


def _groups(quantizers: list[Node]) -> list[list[Node]]:
    """The quantizing nodes by range: one range for what is moved and what it is moved from, where
    both have the same scale and zero point."""
    group = {node: [node] for node in quantizers}
    for node in quantizers:
        for other in _moved_from(_source(node)):
            if (
                other in group
                and other.args[1:] == node.args[1:]
                and group[other] is not group[node]
            ):
                joined = [*group[other], *group[node]]
                group |= dict.fromkeys(joined, joined)
    return list({id(members): members for members in group.values()}.values())


def _moved_from(node: Node) -> Iterator[Node]:
    """The quantizing nodes whose values a node moves."""
    if packet_of(node) in MOVING:
        for taken in node.all_input_nodes:
            if str(taken.target).startswith(DEQUANTIZE):
                yield taken.args[0]
            else:
                yield from _moved_from(taken)


def _without_quantization(graph: GraphModule, weights: Mapping[Node, np.ndarray]) -> GraphModule:
    """The graph with the constants of the float graph, and nothing that quantizes."""
    import torch

    for node in list(graph.graph.nodes):
        if node in weights:
            name = node.args[0].target
            setattr(graph, name, torch.from_numpy(weights[node].copy()))
            node.replace_all_uses_with(node.args[0])
        elif converts(node):
            node.replace_all_uses_with(node.args[0])
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _observed(
    graph: GraphModule, inputs: list[str], names: set[str], runs: Iterable[Arrays]
) -> dict[str, tuple[float, float]]:
    """The smallest and the largest value of each node in these, over all runs."""
    import torch
    from torch.fx import Interpreter

    ends: dict[str, list[float]] = {name: [] for name in names}

    class Watching(Interpreter):
        def run_node(self, n: Node) -> Any:
            value = super().run_node(n)
            if n.name in ends:
                ends[n.name] += [float(value.min()), float(value.max())]
            return value

    with torch.no_grad():
        for feeds in runs:
            Watching(graph).run(*tensors(feeds, inputs))
    return {name: (min(found), max(found)) for name, found in ends.items()}
