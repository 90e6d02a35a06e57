"""Reads and edits graphs of torch.export."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx

__all__ = [
    "arguments_of",
    "drop_unused",
    "first_inputs",
    "name_sizes",
    "operator_name",
    "pass_tensors",
    "stored_tensor",
]

_ATEN = torch.ops.aten


def name_sizes(graph: fx.GraphModule) -> None:
    """Replace operators on sizes by methods and functions, which torch.jit.trace can trace."""
    for node in graph.graph.nodes:
        if node.target is _ATEN.sym_size.int:
            node.op, node.target = "call_method", "size"
        elif isinstance(node.target, torch._ops.OpOverload) and any(
            map(_is_size, node.all_input_nodes)
        ):
            name = node.target._schema.name.partition("::")[2]
            if hasattr(Tensor, name):
                node.op, node.target = "call_method", name
            elif hasattr(torch, name):
                node.target = getattr(torch, name)


def _is_size(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), (int, torch.SymInt))


def pass_tensors(graph: fx.GraphModule) -> None:
    """Make the module take and return tensors directly, unless its inputs or outputs are nested."""
    codegen = graph.graph._codegen
    assert isinstance(codegen, fx.graph._PyTreeCodeGen)
    info = codegen.pytree_info
    arguments, named = (info.in_spec.child(0), info.in_spec.child(1))
    result = info.out_spec
    if result is None or named.num_children or not all(map(_is_leaf, arguments.children())):
        return
    output = next(node for node in graph.graph.nodes if node.op == "output")
    if _is_leaf(result):
        output.args = (output.args[0][0],)
    elif result.type is not tuple or not all(map(_is_leaf, result.children())):
        return
    graph.graph.set_codegen(fx.graph.CodeGen())
    graph.recompile()


def _is_leaf(spec: Any) -> bool:
    return bool(spec.is_leaf())


def drop_unused(graph: fx.GraphModule) -> None:
    """Remove weights that no node reads, so that they are not written into artifacts."""
    used = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    for name, _ in [*graph.named_parameters(), *graph.named_buffers()]:
        if name not in used:
            parent, _, own = name.rpartition(".")
            delattr(graph.get_submodule(parent), own)


def stored_tensor(graph: fx.GraphModule, name: str) -> Tensor:
    parent, _, own = name.rpartition(".")
    value: Tensor = getattr(graph.get_submodule(parent), own)
    return value.detach()


def arguments_of(node: fx.Node) -> dict[str, Any]:
    """All arguments of an operator by name, including defaults."""
    assert isinstance(node.target, torch._ops.OpOverload)
    schema = node.target._schema.arguments
    values = {argument.name: argument.default_value for argument in schema}
    values |= {
        argument.name: value for argument, value in zip(schema, node.args, strict=False)
    } | node.kwargs
    return values


def first_inputs(node: fx.Node, length: int = 4) -> Iterator[fx.Node]:
    """The node, its first input, the first input of that node, and so on."""
    for _ in range(length):
        yield node
        if not node.all_input_nodes:
            return
        node = node.all_input_nodes[0]


def operator_name(node: fx.Node) -> str:
    return str(node.target).removeprefix("aten.").split(".")[0]
