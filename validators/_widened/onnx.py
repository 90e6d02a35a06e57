"""Widens a float16 ONNX file to float32 arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from slide_deploy.protocols import RoundedTensor
from slide_deploy.validators._widened.pairs import paired

__all__ = ["widen"]


def widen(path: Path, program: Path, restored: Path) -> Iterator[RoundedTensor]:
    """See `Runtime.widen`."""
    import onnx

    artifact, origin = onnx.load(path), onnx.load(program)
    halves, singles = _constants(artifact), _constants(origin)
    taken: dict[str, np.ndarray] = {}
    for node, alike in paired(_operations(artifact), _operations(origin)):
        for index, (name, other) in enumerate(zip(node.input, alike.input, strict=False)):
            if name in halves and other in singles:
                yield RoundedTensor(other, halves[name], singles[other])
                # Where two weights became one, each reader gets its own again.
                node.input[index] = f"{name} {other}"
                taken[node.input[index]] = singles[other]
    _widen_types(artifact)
    for name, values in taken.items():
        artifact.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.save(artifact, restored)


def _operations(proto: Any) -> list[tuple[str, Any]]:
    return [
        (node.op_type, node)
        for node in proto.graph.node
        if node.op_type not in ("Cast", "Constant")
    ]


def _constants(proto: Any) -> dict[str, np.ndarray]:
    """The floating-point constants by name."""
    import onnx

    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            tensors[node.output[0]] = node.attribute[0].t
    arrays = {name: onnx.numpy_helper.to_array(tensor) for name, tensor in tensors.items()}
    return {name: array for name, array in arrays.items() if array.dtype.kind == "f"}


def _widen_types(proto: Any) -> None:
    """float32 in place of float16, in constants, casts, inputs and outputs."""
    from onnx import TensorProto

    half, single = TensorProto.FLOAT16, TensorProto.FLOAT
    used = {name for node in proto.graph.node for name in node.input}
    for tensor in list(proto.graph.initializer):
        if tensor.name not in used:
            proto.graph.initializer.remove(tensor)
        elif tensor.data_type == half:
            _widen(tensor)
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == half:
                attribute.i = single
            if attribute.HasField("t") and attribute.t.data_type == half:
                _widen(attribute.t)
    for value in (*proto.graph.input, *proto.graph.output):
        if value.type.tensor_type.elem_type == half:
            value.type.tensor_type.elem_type = single
    del proto.graph.value_info[:]


def _widen(tensor: Any) -> None:
    from onnx import numpy_helper

    wide = numpy_helper.to_array(tensor).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
