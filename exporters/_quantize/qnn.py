"""Quantizes for Qualcomm's Hexagon, and compiles the result for its SoCs."""

from __future__ import annotations

from pathlib import Path

from slide_deploy import hexagon
from slide_deploy.errors import UsageError
from slide_deploy.exporters._quantize.onnx import CalibrationReader, finish, without_advice
from slide_deploy.hexagon import MODEL, SOCS, compile_for
from slide_deploy.protocols import Calibration
from slide_deploy.types import Options, Precision

__all__ = ["DEFAULT_SOC", "parse_socs", "quantize"]

DEFAULT_SOC = "SM8650"

# By onnxruntime's names. Hexagon's types are unsigned, with a zero point; with signed weights it
# refuses LayerNormalization. The second factor of a product of two activations is the exception
# (`_signed_factors`).
ACTIVATIONS = {Precision.W8A8: "QUInt8", Precision.W8A16: "QUInt16"}


def parse_socs(value: object) -> str:
    """Names of SoCs, separated by commas, in upper case; UsageError for an unknown one."""
    names = tuple(dict.fromkeys(part.strip().upper() for part in str(value).split(",")))
    for name in names:
        if name not in SOCS:
            raise UsageError(f"Hexagon's SoC {name[:20]!r} is unknown", f"known: {', '.join(SOCS)}")
    return ",".join(names)


def quantize(program: Path, path: Path, calibration: Calibration, options: Options) -> None:
    """Write the folder `path` from the folder `program` of the float32 file: every operator with
    quantized inputs and outputs, and a context binary for each SoC.

    Raises ConversionError where an operator would stay on the CPU.
    """
    import onnxruntime.quantization as ort
    from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config

    path.mkdir()
    model, wide = path / MODEL, options.precision == Precision.W8A16
    with without_advice():
        config = get_qnn_qdq_config(
            program / MODEL,
            CalibrationReader(calibration),
            activation_type=ort.QuantType[ACTIVATIONS[Precision(options.precision)]],
            weight_type=ort.QuantType.QUInt8,
            init_overrides=_signed_factors(program / MODEL) if wide else None,
        )
        ort.quantize(program / MODEL, model, config)
    finish(model, {**calibration.metadata, "onnxruntime_qnn": hexagon.version()})
    for soc in parse_socs(options.target_options.get("soc", DEFAULT_SOC)).split(","):
        compile_for(soc, model, path / f"{soc}.onnx")


def _signed_factors(program: Path) -> dict[str, list[dict[str, object]]]:
    """onnxruntime's overrides that make the second factor of each product of two activations
    int16, by the factor's name.

    Hexagon takes only the upper 8 bits of a second factor of type uint16: a product of random
    numbers has 44 dB against the CPU, and 75 dB if this factor is int16 with a zero point of 0.
    Weights that differ from their zero point by more than 8 bits hold are inexact in the same way;
    but weights with a symmetric range, which are not, cost more than this does: 2 to 5 dB.
    """
    import onnx
    from onnxruntime.quantization import QuantType

    graph = onnx.load(program, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        if node.op_type == "MatMul" and constants.isdisjoint(node.input):
            readers.setdefault(node.input[1], set()).add(node.name)
    wide = {"quant_type": QuantType.QUInt16}
    signed = {"quant_type": QuantType.QInt16, "symmetric": True}
    return {
        name: [{**wide, "convert": {**signed, "recv_nodes": nodes}}]
        for name, nodes in readers.items()
    }
