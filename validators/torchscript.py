"""Runs TorchScript archives in torch.jit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from slide_deploy.errors import ArtifactError
from slide_deploy.protocols import Arrays, Runtime, Session
from slide_deploy.types import Fidelity, TensorSpec

__all__ = ["RUNTIME"]

ABOUT = "slide_deploy.json"


def open_session(path: Path, *, threads: int = 1) -> Session:
    """Load the archive; input and output specs come from its extra file."""
    import torch

    torch.set_num_threads(threads)
    extra = {ABOUT: ""}
    module = torch.jit.load(str(path), map_location="cpu", _extra_files=extra).eval()
    if not extra[ABOUT]:
        raise ArtifactError(
            f"{path} has no names of inputs and outputs", "export it again with slide-deploy"
        )
    about = json.loads(extra[ABOUT])
    inputs, outputs = (tuple(map(_spec, about[side])) for side in ("inputs", "outputs"))

    def run(feeds: Arrays) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            values = module(*(torch.from_numpy(feeds[spec.name]) for spec in inputs))
        values = (values,) if isinstance(values, torch.Tensor) else values
        return {spec.name: value.numpy() for spec, value in zip(outputs, values, strict=True)}

    graph = module.inlined_graph
    constants = [
        node for node in graph.findAllNodes("prim::Constant") if node.hasAttribute("value")
    ]
    half = any(
        node.kindOf("value") == "t" and node.t("value").dtype == torch.float16 for node in constants
    )
    return Session(
        inputs=inputs,
        outputs=outputs,
        run=run,
        operators=Counter(_operators(graph)),
        runtime=f"torch {torch.__version__.split('+')[0]} TorchScript",
        values=lambda feeds: _values(graph, [feeds[spec.name] for spec in inputs]),
        precision="float16" if half else "float32",
        weight_type="float16" if half else "float32",
        compute_type="float16" if half else "float32",
        device="CPU",
        metadata=about.get("metadata", {}),
    )


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


def _operators(block: Any) -> Iterator[str]:
    for node in block.nodes():
        if node.kind() != "prim::Constant":
            yield node.kind()
        for inner in node.blocks():
            yield from _operators(inner)


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
)
