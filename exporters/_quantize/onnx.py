"""Quantizes ONNX with onnxruntime's static quantizer."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slide_deploy.errors import UsageError
from slide_deploy.exporters._quantize.activations import is_symmetric
from slide_deploy.protocols import Calibration, Product
from slide_deploy.types import Options, Precision, ProductKind

__all__ = ["CalibrationReader", "finish", "products", "quantize", "without_advice"]

# Products take nearly all of the time. With the additions of the residual path in 8 bits too, the
# digits model lost 3 dB, and vision transformers lose most of their accuracy.
QUANTIZED = ("Conv", "MatMul", "Gemm")

# By onnxruntime's names. Its int8 kernels are the fastest on x86 and Arm; its int16 is not an
# activation type of Hexagon.
ACTIVATIONS = {Precision.W8A8: "QInt8", Precision.W8A16: "QUInt16"}

OPSET_OF_16_BITS = 21

# A product with weights of so few rows or columns takes longer in 8 bits than in float32: its
# inputs and outputs are converted for little arithmetic. In Slide Attention these are the products
# with one matrix per kernel position.
NARROW = 16


def quantize(program: Path, path: Path, calibration: Calibration, options: Options) -> None:
    """Write `path` from the float32 file `program`: symmetric weights per output channel,
    activations by their smallest and largest value on the calibration set."""
    import onnx
    from onnxruntime import quantization as ort

    if (
        options.precision == Precision.W8A16
        and (options.opset or OPSET_OF_16_BITS) < OPSET_OF_16_BITS
    ):
        raise UsageError(
            f"ONNX has 16-bit activations from opset {OPSET_OF_16_BITS} on; got {options.opset}",
            f"use --opset {OPSET_OF_16_BITS}, or --precision {Precision.W8A8}",
        )
    with without_advice():
        ort.quantize_static(
            program,
            path,
            CalibrationReader(calibration),
            quant_format=ort.QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            per_channel=True,
            activation_type=ort.QuantType[ACTIVATIONS[Precision(options.precision)]],
            weight_type=ort.QuantType.QInt8,
            calibrate_method=ort.CalibrationMethod.MinMax,
            nodes_to_exclude=sorted(calibration.kept | _narrow(onnx.load(program).graph)),
            extra_options={"ActivationSymmetric": is_symmetric(options)},
            calibration_cache_path=program.with_suffix(".ranges.json"),
        )
    finish(path, calibration.metadata)


def finish(path: Path, metadata: Mapping[str, str]) -> None:
    """Write the metadata into a file that a quantizer made, and check it."""
    import onnx

    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, dict(metadata))
    proto.producer_name = "slide-deploy"
    proto.producer_version = metadata.get("slide_deploy", "")
    onnx.checker.check_model(proto)
    onnx.save(proto, path)


def products(program: Path) -> dict[str, Product]:
    """See `Exporter.products`."""
    import onnx

    graph = onnx.load(program, load_external_data=False).graph
    narrow = _narrow(graph)
    constants = {tensor.name for tensor in graph.initializer}
    readers = {name: node for node in reversed(graph.node) for name in node.input}

    def path(node: Any) -> str:
        """A weight's name; of a transposed one, which has none, that of the bias added next."""
        added = readers.get(node.output[0], node)
        inputs = (*node.input, *(added.input if added.op_type == "Add" else ()))
        names = [name for name in inputs if name in constants]
        return next((name for name in names if "." in name), "")

    found = (n for n in graph.node if n.op_type in QUANTIZED and n.name not in narrow)
    return {node.name: Product(path(node), _kind(node, constants)) for node in found}


def _kind(node: Any, constants: Collection[str]) -> ProductKind:
    if node.op_type == "Conv":
        grouped = any(own.name == "group" and own.i > 1 for own in node.attribute)
        return ProductKind.GROUPED if grouped else ProductKind.CONVOLUTION
    weighted = any(name in constants for name in node.input[:2])
    return ProductKind.LINEAR if weighted else ProductKind.ACTIVATIONS


def _narrow(graph: Any) -> frozenset[str]:
    """The matrix products that stay in float because quantizing them would make them slower; none
    where all are like this, because then the whole model is small."""
    sizes = {tensor.name: tensor.dims for tensor in graph.initializer}
    narrowest = {
        node.name: min(sizes[name][-2:])
        for node in graph.node
        if node.op_type in ("MatMul", "Gemm")
        for name in node.input[:2]
        if name in sizes
    }
    found = frozenset(name for name, size in narrowest.items() if size <= NARROW)
    return found if len(found) < len(narrowest) else frozenset()


class CalibrationReader:
    """The calibration set as onnxruntime reads it."""

    def __init__(self, calibration: Calibration) -> None:
        self._runs = iter(calibration.runs)

    def get_next(self) -> dict[str, Any] | None:
        run = next(self._runs, None)
        return None if run is None else dict(run)


@contextmanager
def without_advice() -> Iterator[None]:
    """Without the advice to preprocess, which is of no use here: constants are folded already."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
