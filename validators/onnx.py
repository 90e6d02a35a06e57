"""Runs ONNX artifacts in onnxruntime on the CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from slide_deploy.errors import ArtifactError
from slide_deploy.protocols import Arrays, Runtime, Session
from slide_deploy.types import Fidelity, TensorSpec

__all__ = ["RUNTIME"]


def open_session(path: Path, *, threads: int = 1) -> Session:
    """Check the file with ONNX's own checker, then load it."""
    import onnx
    import onnxruntime

    proto = onnx.load(path, load_external_data=False)
    if any(tensor.data_location for tensor in proto.graph.initializer):
        raise ArtifactError(f"{path} has weights outside the file", "export it again")
    onnx.checker.check_model(proto)
    onnxruntime.set_default_logger_severity(3)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]

    def run(feeds: Arrays) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))

    half = any(t.data_type == onnx.TensorProto.FLOAT16 for t in proto.graph.initializer)
    return Session(
        inputs=tuple(map(_spec, session.get_inputs())),
        outputs=tuple(map(_spec, session.get_outputs())),
        run=run,
        operators=Counter(_operators(proto.graph)),
        runtime=f"onnxruntime {onnxruntime.__version__} {session.get_providers()[0]}",
        precision="float16, float32 where the CPU has no float16 kernel" if half else "float32",
        values=lambda feeds: _values(path, feeds),
        violations=tuple(f"model-local function {f.name}" for f in proto.functions),
        weight_type="float16" if half else "float32",
        compute_type="float16" if half else "float32",
        device="CPU",
        metadata={entry.key: entry.value for entry in proto.metadata_props},
    )


def _values(path: Path, feeds: Arrays) -> Iterator[np.ndarray]:
    import onnx
    import onnxruntime

    proto = onnx.shape_inference.infer_shapes(onnx.load(path))
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    inner = [v for v in proto.graph.value_info if v.type.tensor_type.elem_type in floats]
    proto.graph.output.extend(inner)
    options = onnxruntime.SessionOptions()
    # Fused kernels would omit intermediate values.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    yield from session.run(None, dict(feeds))


def open_second(path: Path) -> Session:
    """Load the file in ONNX's own reference evaluator, which runs each operator in numpy."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    proto = onnx.load(path)
    evaluator = ReferenceEvaluator(proto)
    names = [value.name for value in proto.graph.output]

    def run(feeds: Arrays) -> dict[str, np.ndarray]:
        return dict(zip(names, evaluator.run(None, dict(feeds)), strict=True))

    return Session(
        inputs=(),
        outputs=(),
        run=run,
        operators=Counter(_operators(proto.graph)),
        runtime=f"ONNX reference evaluator {onnx.__version__}",
        precision="as the graph says",
        values=lambda feeds: iter(()),
    )


def _operators(graph: Any) -> Iterator[str]:
    for node in graph.node:
        yield f"{node.domain or 'ai.onnx'}::{node.op_type}"
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _operators(attribute.g)


def _spec(value: Any) -> TensorSpec:
    element = value.type.removeprefix("tensor(").removesuffix(")")
    dtype = {"float": "float32", "double": "float64"}.get(element, element)
    return TensorSpec(value.name, tuple(value.shape), dtype)


RUNTIME = Runtime(
    target="onnx",
    recognises=lambda path: path.suffix == ".onnx",
    open=open_session,
    fidelity=lambda: Fidelity.NATIVE,
    packages=("onnx", "onnxruntime"),
    extra="onnx",
    standard_domains=frozenset({"ai.onnx"}),
    second_opinion="ONNX's reference evaluator",
    open_second=open_second,
    operator_errors={"sigmoid": 1.5e-7, "softplus": 1e-7, "tanh": 3e-7},  # measured, version 1.31
)
