"""A graph of ATen operators in a safetensors file, which is read without unpickling anything.

The constants are its tensors; the operators stand as JSON in its metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slide_deploy.errors import ArtifactError
from slide_deploy.protocols import Arrays
from slide_deploy.types import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule, Node

__all__ = [
    "DEQUANTIZE",
    "QUANTIZE",
    "block_of",
    "constant",
    "converts",
    "example",
    "interface_of",
    "load_graph",
    "metadata_of",
    "numbers",
    "packet_of",
    "save_graph",
    "specs_of",
    "tensors",
]

ENTRY = "graph"

NAMESPACES = ("aten", "quantized_decomposed")
QUANTIZE = "quantized_decomposed.quantize_per_tensor.default"
DEQUANTIZE = "quantized_decomposed.dequantize_per_"

ITEM = "getitem"

# They read or write files.
REFUSED = ("aten.from_file", "aten._save")


def save_graph(module: GraphModule, path: Path, metadata: Mapping[str, str]) -> None:
    """Write the graph and constants of a module that torch.export made."""
    from safetensors.torch import save

    nodes = [_described(node) for node in module.graph.nodes if node.op != "get_attr"]
    named = {n.name: constant(module, n) for n in module.graph.nodes if n.op == "get_attr"}
    tensors = {name: value.detach().contiguous().clone() for name, value in named.items()}
    path.write_bytes(save(tensors, {**metadata, ENTRY: json.dumps(nodes)}))


def load_graph(path: Path) -> GraphModule:
    """The module of a file that `save_graph` wrote; ArtifactError if it is no such file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from torch import fx, nn

    try:
        tensors, nodes = load_file(path), json.loads(_header(path)[ENTRY])
        root, graph = nn.Module(), fx.Graph()
        known = {}
        for name, value in tensors.items():
            root.register_buffer(name, value)
            known[name] = graph.get_attr(name)
            known[name].meta["value"] = value
        for entry in nodes:
            known[entry["name"]] = _added(graph, entry, known)
        return fx.GraphModule(root, graph)
    except (SafetensorError, ValueError, KeyError, TypeError, OSError) as error:
        raise ArtifactError(f"{path.name} holds no graph: {error}", "export it again") from error


def metadata_of(path: Path) -> dict[str, str]:
    """What the file says of itself, without the graph."""
    return {name: value for name, value in _header(path).items() if name != ENTRY}


def specs_of(path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and the outputs; ArtifactError where the file does not tell them."""
    header = _header(path)
    try:
        inputs, outputs = (
            tuple(TensorSpec(str(e["name"]), tuple(e["shape"]), str(e["dtype"])) for e in entries)
            for entries in (json.loads(header["inputs"]), json.loads(header["outputs"]))
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ArtifactError(
            f"{path.name} does not tell its inputs and outputs", "export it again"
        ) from error
    return inputs, outputs


def interface_of(path: Path) -> dict[str, str]:
    """The part of the metadata that tells inputs and outputs."""
    header = _header(path)
    return {name: header[name] for name in ("inputs", "outputs")}


def example(module: GraphModule) -> tuple[Tensor, ...]:
    """Zeros of the shapes of the inputs."""
    import torch

    return tuple(
        torch.zeros(n.meta["shape"], dtype=n.meta["dtype"])
        for n in module.graph.nodes
        if n.op == "placeholder"
    )


def tensors(arrays: Arrays, names: Iterable[str]) -> list[Tensor]:
    """The arrays of these names as the arguments of a graph."""
    import torch

    return [torch.from_numpy(np.array(arrays[name])) for name in names]


def _header(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        return dict(file.metadata() or {})


def constant(module: GraphModule, node: Node) -> Tensor:
    """The value of a node that stands for a constant of the module."""
    value: Any = module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value  # type: ignore[no-any-return]


def converts(node: Node) -> bool:
    """Whether a node quantizes or dequantizes."""
    return str(node.target).startswith((QUANTIZE, DEQUANTIZE))


def packet_of(node: Node) -> str:
    """The name of a node's operator without namespace and overload, such as "view"."""
    name: str = getattr(node.target, "__name__", "")
    return name if name == ITEM else str(node.target).partition(".")[2].partition(".")[0]


def numbers(value: Any) -> np.ndarray:
    """A number, or the constant that a node of a loaded graph stands for."""
    return np.atleast_1d(value.meta["value"].numpy() if hasattr(value, "meta") else value)


def _described(node: Node) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": node.name, "op": node.op}
    if node.op == "placeholder":
        value = node.meta.get("val")
        shape = node.meta["shape"] if value is None else list(value.shape)
        dtype = node.meta["dtype"] if value is None else value.dtype
        return entry | {"shape": shape, "dtype": _encoded(dtype)}
    if node.op == "call_function":
        named = getattr(node.target, "__name__", "") == ITEM
        entry |= {"op": ITEM if named else str(node.target), "block": block_of(node)}
        entry["custom"] = node.meta.get("custom") or {}
    arguments = {name: _encoded(value) for name, value in node.kwargs.items()}
    return entry | {"args": [_encoded(value) for value in node.args], "kwargs": arguments}


def block_of(node: Node) -> str:
    """The path of the innermost module that the operator is part of."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def _encoded(value: Any) -> Any:
    import torch
    from torch.fx import Node

    if isinstance(value, Node):
        return {"node": value.name}
    if isinstance(value, torch.dtype | torch.memory_format | torch.layout | torch.device):
        return {"torch": str(value).removeprefix("torch.")}
    if isinstance(value, tuple | list):
        return [_encoded(part) for part in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a graph cannot be written with an argument of type {type(value).__name__}")


def _decoded(value: Any, known: Mapping[str, Node]) -> Any:
    import torch

    if isinstance(value, list):
        return [_decoded(part, known) for part in value]
    if not isinstance(value, dict):
        return value
    if "node" in value:
        return known[value["node"]]
    name = str(value["torch"])
    kinds = (torch.dtype, torch.memory_format, torch.layout)
    found = torch.device("cpu") if name == "cpu" else getattr(torch, name, None)
    if not isinstance(found, (*kinds, torch.device)):
        raise ValueError(f"unknown type {name[:40]!r}")
    return found


def _added(graph: Any, entry: Mapping[str, Any], known: Mapping[str, Node]) -> Node:
    name, kind = entry["name"], entry["op"]
    if kind == "placeholder":
        node: Node = graph.placeholder(name)
        node.meta |= {"shape": entry["shape"], "dtype": _decoded(entry["dtype"], known)}
        return node
    arguments = tuple(_decoded(value, known) for value in entry["args"])
    if kind == "output":
        return graph.output(*arguments)  # type: ignore[no-any-return]
    named = {key: _decoded(value, known) for key, value in entry["kwargs"].items()}
    node = graph.create_node("call_function", _operator(kind), arguments, named, name)
    path = entry["block"]
    node.meta["nn_module_stack"] = {path: (path, "torch.nn.Module")}
    node.meta["custom"] = entry["custom"]  # whether Arm's quantizer took it
    return node


def _operator(name: str) -> Any:
    """The operator of this name, of ATen or of PT2E; ValueError for any other."""
    import operator

    import torch
    import torchao.quantization.pt2e  # noqa: F401  # registers quantized_decomposed

    if name == ITEM:
        return operator.getitem
    namespace, packet, overload = name.split(".")
    if namespace not in NAMESPACES or name.startswith(REFUSED):
        raise ValueError(f"unknown operator {name[:60]!r}")
    found = getattr(getattr(getattr(torch.ops, namespace), packet, None), overload, None)
    if not isinstance(found, torch._ops.OpOverload):
        raise ValueError(f"unknown operator {name[:60]!r}")
    return found
