"""Reads torch.export archives back. Runs in a process that cannot import models or exporters."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from slide_deploy.protocols import Arrays, Runtime, Session
from slide_deploy.types import Fidelity, TensorSpec

__all__ = ["RUNTIME"]


def open_session(path: Path, *, threads: int = 1) -> Session:
    """Everything that is said of the artifact comes from the file."""
    import torch

    torch.set_num_threads(threads)
    extra = {"about.json": ""}
    program = torch.export.load(path, extra_files=extra)
    module = program.module()
    about = json.loads(extra["about.json"])
    inputs, outputs = (tuple(map(_spec, about[side])) for side in ("inputs", "outputs"))

    def tensors(feeds: Arrays) -> list[Any]:
        return [torch.from_numpy(feeds[spec.name]) for spec in inputs]

    def run(feeds: Arrays) -> dict[str, np.ndarray]:
        with torch.no_grad():
            values = module(*tensors(feeds))
        values = (values,) if isinstance(values, torch.Tensor) else values
        return {spec.name: v.numpy() for spec, v in zip(outputs, values, strict=True)}

    def values(feeds: Arrays) -> Iterator[np.ndarray]:
        found: list[np.ndarray] = []

        class Watched(torch.fx.Interpreter):
            def run_node(self, node: torch.fx.Node) -> Any:
                value = super().run_node(node)
                if isinstance(value, torch.Tensor) and value.is_floating_point():
                    found.append(value.numpy())
                return value

        with torch.no_grad():
            Watched(module).run(*tensors(feeds))
        yield from found

    precision = "float16" if torch.float16 in _dtypes(program) else "float32"
    return Session(
        inputs=inputs,
        outputs=outputs,
        run=run,
        operators=Counter(
            str(node.target).replace(".", "::", 1)
            for node in program.graph.nodes
            if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload)
        ),
        runtime=f"torch {torch.__version__.split('+')[0]} export",
        precision=precision,
        values=values,
        weight_type=precision,
        compute_type=precision,
        device="CPU",
    )


def _dtypes(program: Any) -> set[Any]:
    return {value.dtype for value in program.state_dict.values()}


def _spec(entry: dict[str, Any]) -> TensorSpec:
    return TensorSpec(entry["name"], tuple(entry["shape"]), entry["dtype"])


RUNTIME = Runtime(
    target="pt2",
    recognises=lambda path: path.suffix == ".pt2",
    open=open_session,
    fidelity=lambda: Fidelity.NATIVE,
    packages=("torch",),
    extra="torch",
    standard_domains=frozenset({"aten"}),
)
