"""Qualcomm's Hexagon NPUs: a quantized ONNX file, and a context binary of it for each SoC."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from slide_deploy.errors import UsageError
from slide_deploy.exporters import _onnx_file
from slide_deploy.exporters._quantize.qnn import DEFAULT_SOC, parse_socs, quantize
from slide_deploy.hexagon import FOLDER, MODEL, PACKAGES, SOCS, unsupported
from slide_deploy.protocols import Example, Exporter, TargetOption
from slide_deploy.types import Options, Precision

if TYPE_CHECKING:
    from slide_deploy.capture import Capture

__all__ = ["EXPORTER"]


def write(capture: Capture, path: Path, options: Options) -> None:
    """Write the folder `path` with the float32 file; UsageError where a shape is free."""
    if any(isinstance(size, str) for spec in capture.inputs for size in spec.shape):
        raise UsageError("Hexagon's compiler needs fixed shapes", "omit --dynamic, or use --batch")
    path.mkdir()
    _onnx_file.write(capture, path / MODEL, replace(options, opset=None))


INTEGERS = "Hexagon's tensor processor computes with integers"

PYTHON = """\
onnxruntime.register_execution_provider_library("QNN", onnxruntime_qnn.get_library_path())
devices = [d for d in onnxruntime.get_ep_devices() if d.ep_name == "QNN"]
options = onnxruntime.SessionOptions()
options.add_provider_for_devices(devices, {"backend_path": onnxruntime_qnn.get_qnn_htp_path()})
session = onnxruntime.InferenceSession(glob.glob($path + "/S*.onnx")[0], options)
result = session.run([$output], inputs)[0]"""

EXPORTER = Exporter(
    target="qnn",
    title="Qualcomm Hexagon",
    file_name=lambda stem: f"{stem}{FOLDER}",
    write=write,
    packages=("torch", "onnxscript", *PACKAGES),
    extra="qnn",
    aliases=("hexagon", "htp"),
    precisions=(Precision.W8A16, Precision.W8A8),
    lacks={
        Precision.FLOAT32: INTEGERS,
        Precision.FLOAT16: INTEGERS,
        Precision.W8: f"{INTEGERS}, of activations too",
    },
    quantize=quantize,
    unsupported=unsupported,
    examples=(
        Example(
            "Python",
            PYTHON,
            imports=("import glob", "import onnxruntime", "import onnxruntime_qnn"),
        ),
    ),
    options=(
        TargetOption(
            name="soc",
            help=f"SoCs to compile for, separated by commas: {', '.join(SOCS)}.",
            parse=parse_socs,
            default=DEFAULT_SOC,
        ),
    ),
)
