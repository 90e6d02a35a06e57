"""Runs TorchScript archives in torch.jit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from slide_deploy.errors import ArtifactError
from slide_deploy.protocols import Arrays, Runtime, Session
from slide_deploy.types import Fidelity, TensorSpec
from slide_deploy.validators._widened.torchscript import widen

__all__ = ["RUNTIME"]

ABOUT = "slide_deploy.json"

Specs = tuple[TensorSpec, ...]


def open_session(path: Path, *, threads: int = 1) -> Session:
    """Load the archive; input and output specs come from its extra file."""
    import torch

    torch.set_num_threads(threads)
    extra = {ABOUT: ""}
    module = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)
    if not extra[ABOUT]:
        raise ArtifactError(
            f"{path} has no names of inputs and outputs", "export it again with slide-deploy"
        )
    about = json.loads(extra[ABOUT])
    inputs, outputs = (tuple(map(_spec, about[side])) for side in ("inputs", "outputs"))

    graph = module.inlined_graph
    violations = tuple(dict.fromkeys(_violations(module, graph)))
    # What is refused by name needs no other sign.
    modes = iter(() if violations else (torch.no_grad, torch.enable_grad))

    def run(feeds: Arrays) -> dict[str, np.ndarray]:
        made = _run(module, inputs, outputs, feeds, torch.inference_mode)
        for mode in modes:  # in the first run
            again = _run(module, inputs, outputs, feeds, mode)
            if not all(np.array_equal(made[n], again[n], equal_nan=True) for n in made):
                raise ArtifactError(
                    f"{path.name} gives other outputs in {mode.__name__} than in inference_mode",
                    "export it again",
                )
        return made

    half = _mostly_half(module, graph)
    return Session(
        inputs=inputs,
        outputs=outputs,
        run=run,
        operators=Counter(node.kind() for node in _nodes(graph)),
        runtime=f"torch {torch.__version__.split('+')[0]} TorchScript",
        values=lambda feeds: _values(graph, [feeds[spec.name] for spec in inputs]),
        precision="float16" if half else "float32",
        violations=violations,
        weight_type="float16" if half else "float32",
        compute_type="float16" if half else "float32",
        device="CPU",
        metadata=about.get("metadata", {}),
    )


def _run(
    module: Any, inputs: Specs, outputs: Specs, feeds: Arrays, mode: Callable[[], Any]
) -> dict[str, np.ndarray]:
    import torch

    with mode():
        values = module(*(torch.from_numpy(feeds[spec.name]) for spec in inputs))
    values = (values,) if isinstance(values, torch.Tensor) else values
    return {s.name: value.detach().numpy() for s, value in zip(outputs, values, strict=True)}


def _mostly_half(module: Any, graph: Any) -> bool:
    """Whether most floating-point weights are float16; one that nothing uses decides nothing."""
    import torch

    sizes = Counter[Any]()
    for node in graph.findAllNodes("prim::Constant"):
        if node.hasAttribute("value") and node.kindOf("value") == "t":
            sizes[node.t("value").dtype] += node.t("value").numel()
    for weight in module.parameters():
        sizes[weight.dtype] += weight.numel()
    return sizes[torch.float16] > sizes[torch.float32]


# Operators that tell how torch is set, which no input shows.
MODES = {
    *("aten::is_grad_enabled", "aten::is_autocast_enabled", "aten::is_inference"),
    *("aten::requires_grad", "prim::requires_grad"),
}
VIEWS = {
    *("alias", "chunk", "contiguous", "detach", "expand", "flatten", "narrow", "permute"),
    *("reshape", "select", "slice", "split", "squeeze", "t", "to", "transpose", "unbind"),
    *("unflatten", "unsqueeze", "view"),
}
SIZES = ("prim::Constant", "aten::size", "aten::dim", "aten::len", "prim::dtype", "prim::device")


def _violations(module: Any, graph: Any) -> Iterator[str]:
    """What may give another answer to the same input: modes, state, chance."""
    if any(getattr(part, "training", False) for part in module.modules()):
        yield "it was saved in training mode"
    for node in _nodes(graph):
        kind = node.kind()
        if kind == "prim::SetAttr":
            yield f"prim::SetAttr writes the attribute {node.s('name')}: it keeps state"
        elif "!" in node.schema() and _is_stored(node.inputsAt(0)):
            yield f"{kind} changes what the file stores: it keeps state"
        elif kind in MODES:
            yield f"{kind} makes the answer depend on a mode"
        elif _is_random(node):
            yield f"{kind} draws random numbers"
        elif kind in ("prim::If", "prim::Loop") and not all(map(_is_size, _conditions(node))):
            yield f"{kind} depends on more than the sizes of inputs"


def _is_stored(value: Any) -> bool:
    """Whether it is part of the file, or a view of such a part."""
    node = value.node()
    while node.kind() == "prim::ListUnpack" or node.kind().removeprefix("aten::") in VIEWS:
        node = node.inputsAt(0).node()
    return node.kind() in ("prim::Constant", "prim::GetAttr")


def _is_random(node: Any) -> bool:
    """Whether the operator draws numbers, and is not told by a constant to do without."""
    import torch

    packet = getattr(torch.ops.aten, node.kind().removeprefix("aten::"), None)
    seeded = torch.Tag.nondeterministic_seeded
    if packet is None or not any(seeded in getattr(packet, o).tags for o in packet.overloads()):
        return False
    named = [argument.name for argument in torch._C.parse_schema(node.schema()).arguments]
    given = dict(zip(named, node.inputs(), strict=True))
    switches = [given[n].toIValue() for n in ("train", "training", "dropout_p") if n in given]
    return not any(value is not None and not value for value in switches)


def _conditions(node: Any) -> Iterator[Any]:
    """What decides which block runs, or how often."""
    if node.kind() == "prim::If":
        yield node.inputsAt(0)
        return
    yield from (node.inputsAt(0), node.inputsAt(1))
    for block in node.blocks():
        yield block.returnNode().inputsAt(0)


def _is_size(value: Any) -> bool:
    """Whether it is computed of constants and of the sizes of tensors alone."""
    waiting, seen = [value.node()], set()
    while waiting:
        node = waiting.pop()
        if node.kind() in SIZES or node in seen:
            continue
        seen.add(node)
        operands = [operand.node() for operand in node.inputs()]
        if not operands:  # an input, or a mode
            return False
        waiting += operands
    return True


def _values(graph: Any, arrays: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Run a copy of the graph that returns every tensor it computes."""
    import torch

    graph = graph.copy()
    tensors = [
        value
        for node in graph.nodes()
        if node.kind() != "prim::Constant"
        for value in node.outputs()
        if value.type().kind() == "TensorType"
    ]
    everything = graph.create("prim::TupleConstruct", tensors, 1)
    graph.appendNode(everything)
    everything.output().setType(torch._C.TupleType([value.type() for value in tensors]))
    for _ in list(graph.outputs()):
        graph.eraseOutput(0)
    graph.registerOutput(everything.output())
    graph.eraseInput(0)  # the module itself, which is empty after freezing
    run = torch._C._create_function_from_graph("values", graph)
    with torch.inference_mode():
        results = run(*map(torch.from_numpy, arrays))
    yield from (value.numpy() for value in results if value.is_floating_point())


def _nodes(block: Any) -> Iterator[Any]:
    """Every node but the constants, those of inner blocks too."""
    for node in block.nodes():
        if node.kind() != "prim::Constant":
            yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _spec(entry: dict[str, Any]) -> TensorSpec:
    return TensorSpec(entry["name"], tuple(entry["shape"]), entry["dtype"])


RUNTIME = Runtime(
    target="torchscript",
    recognises=lambda path: path.suffix == ".torchscript",
    open=open_session,
    fidelity=lambda: Fidelity.NATIVE,
    packages=("torch",),
    extra="torchscript",
    standard_domains=frozenset({"aten", "prim"}),
    loses_nan=frozenset(),
    widen=widen,
)
