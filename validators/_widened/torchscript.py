"""Widens a float16 TorchScript archive to float32 arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slide_deploy.protocols import RoundedTensor
from slide_deploy.validators._widened.pairs import paired

__all__ = ["widen"]

ABOUT = "slide_deploy.json"

# The numbers by which graphs name torch.float16 and torch.float32.
HALF, SINGLE = 5, 6


def widen(path: Path, program: Path, restored: Path) -> Iterator[RoundedTensor]:
    """See `Runtime.widen`."""
    import torch

    extra = {ABOUT: ""}
    artifact = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)
    origin = torch.jit.load(str(program), map_location="cpu")
    for node, alike in paired(_operations(artifact.graph), _operations(origin.graph)):
        for index, (own, other) in enumerate(zip(node.inputs(), alike.inputs(), strict=False)):
            half, single = _tensor(own), _tensor(other)
            if half is None or single is None:
                continue
            yield RoundedTensor(f"{node.kind()} {other.debugName()}", half.numpy(), single.numpy())
            node.replaceInput(index, _inserted(artifact.graph, node, single))
    _widen_types(artifact.graph)
    torch.jit.save(artifact, str(restored), _extra_files=extra)


def _operations(graph: Any) -> list[tuple[str, Any]]:
    return [
        (node.kind(), node)
        for node in graph.nodes()
        if node.kind() not in ("prim::Constant", "aten::to")
    ]


def _tensor(value: Any) -> Any | None:
    """The floating-point constant that a value is."""
    node = value.node()
    if node.kind() != "prim::Constant" or not node.hasAttribute("value"):
        return None
    tensor = node.t("value") if node.kindOf("value") == "t" else None
    return tensor if tensor is not None and tensor.is_floating_point() else None


def _inserted(graph: Any, node: Any, tensor: Any) -> Any:
    """A constant of its own before `node`."""
    with graph.insert_point_guard(node):
        return graph.insertConstant(tensor)


def _widen_types(graph: Any) -> None:
    """float32 in place of float16, where an operator is told its type and in constants."""
    import torch

    for node in list(graph.nodes()):
        if node.kind() == "prim::Constant" or "dtype" not in node.schema():
            continue
        names = [argument.name for argument in torch._C.parse_schema(node.schema()).arguments]
        for index, name in enumerate(names):
            if name == "dtype" and node.inputsAt(index).toIValue() == HALF:
                node.replaceInput(index, _inserted(graph, node, SINGLE))
    for node in graph.findAllNodes("prim::Constant"):
        if node.hasAttribute("value") and node.kindOf("value") == "t":
            tensor = node.t("value")
            if tensor.dtype == torch.float16:
                node.t_("value", tensor.float())
