"""Takes a QDQ ONNX file apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from slide_deploy.errors import ArtifactError
from slide_deploy.protocols import Arrays, QuantizedTensor

__all__ = ["MOVING", "float_operations", "quantized_types", "take_apart"]

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"

# Operators that only move values.
MOVING = (
    *("Concat", "Expand", "Gather", "Identity", "Pad", "Reshape", "Slice", "Split", "Squeeze"),
    *("Transpose", "Unsqueeze"),
)

# The type of biases, which are added to sums of products.
BIAS = "int32"


def take_apart(
    path: Path, program: Path, restored: Path, runs: Iterable[Arrays]
) -> Iterator[QuantizedTensor]:
    """See `Runtime.take_apart`. Raises ArtifactError where `path` quantizes what the float32 file
    `program` does not have, or dequantizes otherwise than it quantizes."""
    import onnx

    artifact, origin = onnx.load(path), onnx.load(program)
    constants, originals = _constants(artifact), _constants(origin)
    writers = {name: node for node in artifact.graph.node for name in node.output}
    readers = [node for node in artifact.graph.node if node.op_type == DEQUANTIZE]
    weights = {node.output[0]: node for node in readers if node.input[0] in constants}
    passed = {
        node.output[0]: _quantizer(node, writers, constants)
        for node in readers
        if node.output[0] not in weights
    }
    sources = _sources(artifact, {name: node.input[0] for name, node in passed.items()})
    floats = {
        name: _original(name, constants[node.input[0]].shape, artifact, origin, sources)
        for name, node in weights.items()
    }
    onnx.save(
        _restored(artifact, lambda name: floats.get(name) or sources(name), originals), restored
    )
    scales = {name: constants[node.input[1]] for name, node in (weights | passed).items()}
    products = {
        node.input[2]: np.asarray(scales[node.input[0]] * scales[node.input[1]])
        for node in artifact.graph.node
        if len(node.input) > 2 and all(name in scales for name in node.input[:3])
    }
    for name, node in weights.items():
        integers, own = constants[node.input[0]], originals[floats[name]]
        product = products.get(name) if integers.dtype.name == BIAS else None
        yield _tensor(floats[name], node, constants, integers, own, product)
    quantizers = {node.output[0]: node for node in passed.values()}
    names = {output: sources(node.input[0]) for output, node in quantizers.items()}
    observed = _observed(origin, originals, sorted(set(names.values())), runs)
    for output, node in quantizers.items():
        yield _tensor(names[output], node, constants, observed=observed[names[output]])


def quantized_types(proto: Any) -> tuple[str, str] | None:
    """The types of most quantized weights and of most quantized activations; None without."""
    kinds = {name: value.dtype.name for name, value in _constants(proto).items()}
    weights: Counter[str] = Counter()
    activations: Counter[str] = Counter()
    for node in proto.graph.node:
        if node.op_type == DEQUANTIZE and kinds.get(node.input[0], BIAS) != BIAS:
            weights[kinds[node.input[0]]] += 1
        if node.op_type == QUANTIZE and kinds.get("".join(node.input[2:])):
            activations[kinds[node.input[2]]] += 1
    if not weights:
        return None
    return max(weights, key=weights.__getitem__), max(
        activations, key=activations.__getitem__, default="float32"
    )


def float_operations(proto: Any) -> tuple[str, ...]:
    """The operators of a quantized file that take float32 values, by name."""
    read = {name for n in proto.graph.node if n.op_type == DEQUANTIZE for name in n.output}
    constants = {tensor.name for tensor in proto.graph.initializer}
    return tuple(
        f"{node.name} ({node.op_type})"
        for node in proto.graph.node
        if node.op_type not in (QUANTIZE, DEQUANTIZE, *MOVING)
        and not all(name in read or name in constants for name in node.input if name)
    )


def _constants(proto: Any) -> dict[str, np.ndarray]:
    import onnx

    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def _quantizer(node: Any, writers: Mapping[str, Any], constants: Mapping[str, np.ndarray]) -> Any:
    """The node that quantizes what `node` dequantizes, with the same scale and zero point."""
    found = writers.get(node.input[0])
    if found is None or found.op_type != QUANTIZE:
        raise ArtifactError(
            f"{node.output[0]} is dequantized, but was not quantized", "export it again"
        )
    pairs = zip(found.input[1:], node.input[1:], strict=True)
    if not all(np.array_equal(constants[a], constants[b]) for a, b in pairs):
        raise ArtifactError(
            f"{node.output[0]} is dequantized with another scale or zero point than it was "
            "quantized with",
            "export it again",
        )
    return found


def _original(
    name: str, shape: tuple[int, ...], artifact: Any, origin: Any, source: Callable[[str], str]
) -> str:
    """The weight of the float32 file that the dequantized `name` stands for: what the same
    operator reads in its place."""
    user, place = next(
        (node, list(node.input).index(name)) for node in artifact.graph.node if name in node.input
    )
    alike = next((n for n in origin.graph.node if n.output[0] == source(user.output[0])), None)
    sizes = {tensor.name: tuple(tensor.dims) for tensor in origin.graph.initializer}
    found = alike.input[place] if alike is not None and len(alike.input) > place else ""
    if sizes.get(found) != shape:
        raise ArtifactError(
            f"the float32 artifact has no weight of the shape of {name} in its place",
            "verify it with the options that it was exported with",
        )
    return str(found)


def _sources(artifact: Any, before: Mapping[str, str]) -> Callable[[str], str]:
    """A function from a value to the one that it is without quantization."""
    outputs = {value.name for value in artifact.graph.output}
    # An output of the file that is dequantized has the name that its source had.
    renamed = {source: name for name, source in before.items() if name in outputs}

    def source(name: str) -> str:
        while name in before and name not in outputs:
            name = before[name]
        return renamed.get(name, name)

    return source


def _restored(
    artifact: Any, source: Callable[[str], str], originals: Mapping[str, np.ndarray]
) -> Any:
    """The artifact without quantization, with the weights of the float32 file."""
    import onnx

    restored = onnx.ModelProto()
    restored.CopyFrom(artifact)
    kept = [n for n in artifact.graph.node if n.op_type not in (QUANTIZE, DEQUANTIZE)]
    del restored.graph.node[:], restored.graph.initializer[:], restored.graph.value_info[:]
    for node in kept:
        new = restored.graph.node.add()
        new.CopyFrom(node)
        new.input[:] = [source(name) for name in node.input]
        new.output[:] = [source(name) for name in node.output]
    used = {name for node in restored.graph.node for name in node.input}
    own = {tensor.name: tensor for tensor in artifact.graph.initializer}
    for name in sorted(used & (own.keys() | originals.keys())):
        tensor = own.get(name) or onnx.numpy_helper.from_array(originals[name], name)
        restored.graph.initializer.add().CopyFrom(tensor)
    return restored


def _tensor(
    name: str,
    node: Any,
    constants: Mapping[str, np.ndarray],
    integers: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    product: np.ndarray | None = None,
    observed: tuple[float, float] | None = None,
) -> QuantizedTensor:
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    zero_point = constants[node.input[2]]
    limits = np.iinfo(zero_point.dtype)
    return QuantizedTensor(
        name=name,
        kind=zero_point.dtype.name,
        low=limits.min,
        high=limits.max,
        scale=constants[node.input[1]],
        zero_point=zero_point,
        axis=axis,
        integers=integers,
        weights=weights,
        product=product,
        observed=observed,
    )


def _observed(
    origin: Any, originals: Mapping[str, np.ndarray], names: list[str], runs: Iterable[Arrays]
) -> dict[str, tuple[float, float]]:
    """The smallest and the largest value of each name in the float32 file, over all runs."""
    import onnx
    import onnxruntime

    inputs = {value.name for value in origin.graph.input}
    written = {name for node in origin.graph.node for name in node.output}
    if unknown := [name for name in names if name not in inputs | written | originals.keys()]:
        raise ArtifactError(
            f"the float32 artifact has no value {unknown[0]}",
            "verify it with the options that it was exported with",
        )
    told = {value.name for value in origin.graph.output}
    asked = [name for name in names if name in written]
    extended = onnx.ModelProto()
    extended.CopyFrom(origin)
    extended.graph.output.extend(onnx.ValueInfoProto(name=n) for n in asked if n not in told)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        extended.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    ends: dict[str, list[float]] = {name: [] for name in names}
    for feeds in runs:
        made = dict(zip(asked, session.run(asked, dict(feeds)), strict=True))
        values = {**originals, **feeds, **made}
        for name in names:
            value = values[name]
            ends[name] += [float(value.min()), float(value.max())]
    return {name: (min(values), max(values)) for name, values in ends.items()}
