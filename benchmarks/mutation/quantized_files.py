"""Reads the numbers of quantized artifacts, by the names of quantized_edits, and writes others."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from slide_deploy import hexagon
from slide_deploy.ethos_u.files import GRAPH
from slide_deploy.ethos_u.graph import (
    QUANTIZE,
    converts,
    load_graph,
    metadata_of,
    numbers,
    save_graph,
)

__all__ = ["READERS", "Write"]

Values = dict[str, np.ndarray]

# Writes the artifact with these arrays in place of those of the same names.
Write = Callable[[Mapping[str, np.ndarray], Path], None]


def _read_onnx(path: Path) -> tuple[Values, Write]:
    import onnx

    proto = onnx.load(path)
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    axes = {
        f"{node.input[0].removesuffix('_quantized')}_axis": attribute
        for node in proto.graph.node
        for attribute in node.attribute
        if node.op_type == "DequantizeLinear" and attribute.name == "axis"
    }

    def write(changed: Mapping[str, np.ndarray], broken: Path) -> None:
        for name, value in changed.items():
            if name in axes:
                axes[name].i = int(value)
            else:
                tensors[name].CopyFrom(onnx.numpy_helper.from_array(value, name))
        onnx.save(proto, broken)

    values = {name: onnx.numpy_helper.to_array(tensor) for name, tensor in tensors.items()}
    return values | {name: np.array(one.i) for name, one in axes.items()}, write


def _read_qnn(path: Path) -> tuple[Values, Write]:
    """The numbers of the quantized ONNX file; the context binaries are compiled again from what is
    written."""
    values, write_onnx = _read_onnx(path / hexagon.MODEL)

    def write(changed: Mapping[str, np.ndarray], broken: Path) -> None:
        broken.mkdir()
        write_onnx(changed, broken / hexagon.MODEL)
        for context in path.glob("S*.onnx"):
            hexagon.compile_for(context.stem, broken / hexagon.MODEL, broken / context.name)

    return values, write


def _read_openvino(path: Path) -> tuple[Values, Write]:
    import openvino
    from openvino import opset13

    model = openvino.Core().read_model(next(path.glob("*.xml")))
    constants, quantizers = _openvino_places(model)
    values = {name: np.array(node.data) for name, node in constants.items()}
    for name, node in quantizers.items():
        low, high = (float(node.input_value(place).get_node().data) for place in (1, 2))
        values[f"{name}_scale"] = np.array([(high - low) / 255])
        values[f"{name}_zero_point"] = np.array([round(-128 - low * 255 / (high - low))])

    def write(changed: Mapping[str, np.ndarray], broken: Path) -> None:
        for name in {key.removesuffix("_scale").removesuffix("_zero_point") for key in changed}:
            if name in quantizers:
                scale, zero = (
                    float(changed.get(key, values[key])[0])
                    for key in (f"{name}_scale", f"{name}_zero_point")
                )
                for place, integer in zip(range(1, 5), (-128, 127, -128, 127), strict=True):
                    end = opset13.constant(np.array(scale * (integer - zero), np.float32))
                    quantizers[name].input(place).replace_source_output(end.output(0))
        for name, value in changed.items():
            if name in constants:
                constants[name].output(0).replace(opset13.constant(value).output(0))
        broken.mkdir()
        openvino.save_model(model, broken / "model.xml", compress_to_fp16=False)

    return values, write


def _openvino_places(model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The constants by name, and the operations that quantize activations."""
    constants: dict[str, Any] = {}
    quantizers: dict[str, Any] = {}
    ends: set[str] = set()
    for node in model.get_ordered_ops():
        kind, name = node.get_type_name(), node.get_friendly_name()
        given = [port.get_node() for port in node.input_values()]
        if kind == "FakeQuantize":
            quantizers[name] = node
            ends |= {one.get_friendly_name() for one in given[1:]}
        elif kind == "Multiply" and given[0].get_type_name() == "Convert":
            integers = given[0].input_value(0).get_node()
            if integers.get_element_type().get_type_name() == "i8":
                constants |= {f"{name}_quantized": integers, f"{name}_scale": given[1]}
    known = {node.get_friendly_name() for node in constants.values()} | ends
    for node in model.get_ordered_ops():
        name = node.get_friendly_name()
        if (
            node.get_type_name() == "Constant"
            and name not in known
            and node.get_element_type().get_type_name() == "f32"
        ):
            constants[name] = node
    return constants, quantizers


HALF, INT8 = 10, 21  # of MIL.proto
TYPES = {HALF: np.float16, 11: np.float32, INT8: np.int8, 31: np.uint8}
MODEL, WEIGHTS = "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin"


def _read_coreml(path: Path) -> tuple[Values, Write]:
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model.FromString((path / MODEL).read_bytes())
    (function,) = model.mlProgram.functions.values()
    operations = function.block_specializations[function.opset].operations
    content = bytearray((path / WEIGHTS).read_bytes())
    places = _coreml_places(operations)
    values = {name: _number(places[name][0], content) for name in places}
    pairs = {name: pair for name, pair in _pairs(operations) if f"{name}_scale" in values}
    values |= {f"{name}_zero_point": np.zeros(1, np.int8) for name in pairs}

    def write(changed: Mapping[str, np.ndarray], broken: Path) -> None:
        for name, value in changed.items():
            for place in places.get(name, ()):
                _set_number(place, value, content)
            if name.endswith("_zero_point") and name not in places:
                for op in pairs[name.removesuffix("_zero_point")]:
                    zero = op.inputs["zero_point"].arguments.add().value
                    zero.type.tensorType.dataType = INT8
                    zero.immediateValue.tensor.bytes.values = value.tobytes()
        shutil.copytree(path, broken)
        (broken / MODEL).write_bytes(model.SerializeToString())
        (broken / WEIGHTS).write_bytes(content)

    return values, write


def _coreml_places(operations: Any) -> dict[str, list[Any]]:
    """The messages with the numbers of each name; a pair has its scale twice."""
    places: dict[str, list[Any]] = {}
    constants = {op.outputs[0].name: op for op in operations if op.type == "const"}
    for op in operations:
        if op.type == "constexpr_affine_dequantize":
            name = op.outputs[0].name.removesuffix("_quantized")
            places[f"{name}_quantized"] = [op.attributes["quantized_data"]]
            for key in ("scale", "zero_point", "axis"):
                places[f"{name}_{key}"] = [op.attributes[key]]
        elif op.type == "const" and _is_large_half(op.attributes["val"]):
            places[op.outputs[0].name] = [op.attributes["val"]]
    for name, pair in _pairs(operations):
        scales = [constants[op.inputs["scale"].arguments[0].name] for op in pair]
        places[f"{name}_scale"] = [op.attributes["val"] for op in scales]
    return places


def _is_large_half(message: Any) -> bool:
    return bool(message.HasField("blobFileValue") and message.type.tensorType.dataType == HALF)


def _pairs(operations: Any) -> list[tuple[str, tuple[Any, Any]]]:
    """What is quantized, by name, with the operations that quantize and dequantize it."""
    integers = {op.outputs[0].name: op for op in operations if op.type == "quantize"}
    back = {
        op.inputs["input"].arguments[0].name: op for op in operations if op.type == "dequantize"
    }
    found = ((op, back[name]) for name, op in integers.items() if name in back)
    return [(pair[0].inputs["input"].arguments[0].name, pair) for pair in found]


def _number(message: Any, content: bytearray) -> np.ndarray:
    tensor = message.type.tensorType
    if message.HasField("blobFileValue"):
        shape = [size.constant.size for size in tensor.dimensions]
        kind = np.dtype(TYPES[tensor.dataType])
        count, start = int(np.prod(shape)), _start(message, content)
        return np.frombuffer(content, kind, count, start).reshape(shape).copy()
    held = message.immediateValue.tensor
    if held.HasField("ints"):
        return np.array(held.ints.values[0])
    return np.frombuffer(held.bytes.values, TYPES[tensor.dataType]).copy()


def _set_number(message: Any, value: np.ndarray, content: bytearray) -> None:
    if message.HasField("blobFileValue"):
        start = _start(message, content)
        content[start : start + value.nbytes] = value.tobytes()
    elif message.immediateValue.tensor.HasField("ints"):
        message.immediateValue.tensor.ints.values[0] = int(value)
    else:
        message.immediateValue.tensor.bytes.values = value.tobytes()


def _start(message: Any, content: bytearray) -> int:
    """Where the numbers of a tensor begin, as its header in the file says."""
    place = message.blobFileValue.offset + 16
    return int.from_bytes(content[place : place + 8], "little")


ENDS = ("scale", "zero_point", "axis")


def _read_ethos_u(path: Path) -> tuple[Values, Write]:
    """The numbers of the quantized graph; the programs stay as they are."""
    graph = load_graph(path / GRAPH)
    values: Values = {}
    readers: dict[str, list[Any]] = {}
    for node in graph.graph.nodes:
        if not converts(node):
            continue
        source = node if str(node.target) == QUANTIZE else node.args[0]
        name = source.name
        if source.op == "get_attr":
            values[f"{name}_quantized"] = integers = numbers(source)
            name = f"{name}_quantized" if integers.dtype == np.int32 else name
        readers.setdefault(name, []).append(node)
        values |= {f"{name}_{end}": value for end, value in _how_quantized(node)}

    def write(changed: Mapping[str, np.ndarray], broken: Path) -> None:
        for name, nodes in readers.items():
            for place, end in enumerate(("quantized", *ENDS)):
                if f"{name}_{end}" in changed:
                    _set_argument(graph, nodes, place, changed[f"{name}_{end}"])
        shutil.copytree(path, broken)
        save_graph(graph, broken / GRAPH, metadata_of(path / GRAPH))

    return values, write


def _how_quantized(node: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Scale, zero point and, of channels, the axis of a node that quantizes or dequantizes."""
    given = node.args[1 : 4 if "per_channel" in str(node.target) else 3]
    return zip(ENDS, map(numbers, given), strict=False)


def _set_argument(graph: Any, nodes: Iterable[Any], place: int, value: np.ndarray) -> None:
    import torch

    for node in nodes:
        if hasattr(node.args[place], "op"):
            setattr(graph, node.args[place].target, torch.from_numpy(value.copy()))
        else:
            node.update_arg(place, value.item())


READERS: Mapping[str, Callable[[Path], tuple[Values, Write]]] = {
    "onnx": _read_onnx,
    "openvino": _read_openvino,
    "coreml": _read_coreml,
    "qnn": _read_qnn,
    "ethos-u": _read_ethos_u,
}
