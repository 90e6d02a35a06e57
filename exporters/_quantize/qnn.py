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
# refuses LayerNormalization.
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
    model = path / MODEL
    with without_advice():
        config = get_qnn_qdq_config(
            program / MODEL,
            CalibrationReader(calibration),
            activation_type=ort.QuantType[ACTIVATIONS[Precision(options.precision)]],
            weight_type=ort.QuantType.QUInt8,
        )
        ort.quantize(program / MODEL, model, config)
    finish(model, {**calibration.metadata, "onnxruntime_qnn": hexagon.version()})
    for soc in parse_socs(options.target_options.get("soc", DEFAULT_SOC)).split(","):
        compile_for(soc, model, path / f"{soc}.onnx")
