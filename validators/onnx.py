"""Runs ONNX artifacts in onnxruntime on the CPU."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from slide_deploy.errors import ArtifactError
from slide_deploy.protocols import Arrays, Runtime, Session
from slide_deploy.types import Fidelity, TensorSpec
from slide_deploy.validators._quantized.onnx import float_operations, quantized_types, take_apart
from slide_deploy.validators._reduce.onnx import reduce
from slide_deploy.validators._widened.onnx import widen

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

    float_type = "float16" if _mostly_half(proto.graph.initializer) else "float32"
    weight_type, compute_type = quantized_types(proto) or (float_type, float_type)
    return Session(
        inputs=tuple(map(_spec, session.get_inputs())),
        outputs=tuple(map(_spec, session.get_outputs())),
        run=run,
        operators=Counter(map(_operator, _nodes(proto.graph))),
        runtime=f"onnxruntime {onnxruntime.__version__} {session.get_providers()[0]}",
        precision=_precision(weight_type, compute_type),
        values=lambda feeds: _values(path, feeds),
        violations=tuple(dict.fromkeys(_violations(proto))),
        weight_type=weight_type,
        compute_type=compute_type,
        device="CPU",
        other_precision=float_operations(proto) if quantized_types(proto) else (),
        metadata={entry.key: entry.value for entry in proto.metadata_props},
    )


def _precision(weights: str, activations: str) -> str:
    if weights == "float16":
        return "float16, float32 where the CPU has no float16 kernel"
    if weights == "float32":
        return "float32"
    return f"{weights} weights and {activations} activations, float32 between quantized operators"


RANDOM = {
    *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
    *("Multinomial", "Bernoulli"),
}
CONTROL_FLOW = {"If", "Loop", "Scan"}

# Of onnxruntime's kernels (measured with 1.31): what compares values passes over NaN.
LOSES_NAN = frozenset(
    f"ai.onnx::{kind}"
    for kind in ("MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin", "TopK", "ArgMax", "ArgMin")
)


def _violations(proto: Any) -> Iterator[str]:
    """What no exporter writes, and what a few runs could miss."""
    import onnx

    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    yield from (f"model-local function {function.name}" for function in proto.functions)
    for value in proto.graph.input:
        if value.name in constants:
            yield f"the weight {value.name} is also an input: a caller can replace it"
    for node in _nodes(proto.graph):
        if node.op_type in RANDOM:
            yield f"{node.op_type} draws random numbers"
        elif node.op_type in CONTROL_FLOW:
            yield f"{node.op_type} may compute something else for other inputs"
        elif node.op_type == "Dropout" and any(node.input[2:]):
            training = constants.get(node.input[2])
            if training is None or onnx.numpy_helper.to_array(training).any():
                yield "Dropout is in training mode"


def _mostly_half(tensors: Iterable[Any]) -> bool:
    """Whether most floating-point weights are float16; one that nothing uses decides nothing."""
    import onnx

    sizes = Counter[int]()
    for tensor in tensors:
        sizes[tensor.data_type] += math.prod(tensor.dims)
    return sizes[onnx.TensorProto.FLOAT16] > sizes[onnx.TensorProto.FLOAT]


def _values(path: Path, feeds: Arrays) -> Iterator[np.ndarray]:
    import onnx
    import onnxruntime

    proto = onnx.shape_inference.infer_shapes(onnx.load(path))
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    written = {name for node in proto.graph.node for name in node.output}
    # Quantizers leave descriptions of values that they removed.
    inner = [v for v in proto.graph.value_info if v.type.tensor_type.elem_type in floats]
    proto.graph.output.extend(value for value in inner if value.name in written)
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
        operators=Counter(map(_operator, _nodes(proto.graph))),
        runtime=f"ONNX reference evaluator {onnx.__version__}",
        precision="as the graph says",
        values=lambda feeds: iter(()),
    )


def _nodes(graph: Any) -> Iterator[Any]:
    """Every node, those of inner graphs too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def _operator(node: Any) -> str:
    return f"{node.domain or 'ai.onnx'}::{node.op_type}"


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
    loses_nan=LOSES_NAN,
    take_apart=take_apart,
    reduce=reduce,
    widen=widen,
)
