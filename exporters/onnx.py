"""ONNX through the torch.export-based exporter: standard operators, weights in the file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from slide_deploy.errors import ConversionError
from slide_deploy.protocols import Exporter
from slide_deploy.types import Options, Precision

if TYPE_CHECKING:
    from slide_deploy.capture import Capture

__all__ = ["EXPORTER"]

# The exporter's own, and the first with Gelu: one kernel in onnxruntime instead of five, 4 % of
# the time of Slide-Swin-T. onnxruntime reads it since 1.17.
DEFAULT_OPSET = 20


def write(capture: Capture, path: Path, options: Options) -> None:
    """Write `path`; ConversionError where the opset asked for is not the one that came out."""
    import onnx
    import torch

    if options.precision == Precision.FLOAT16:
        capture = capture.in_half()
    opset = DEFAULT_OPSET if options.opset is None else options.opset
    program = torch.onnx.export(
        capture.program,
        capture.example,
        dynamo=True,
        opset_version=opset,
        input_names=[spec.name for spec in capture.inputs],
        output_names=[spec.name for spec in capture.outputs],
        external_data=False,
        verbose=False,
    )
    assert program is not None  # only the deprecated exporter returns nothing
    proto = program.model_proto
    written = {entry.domain: entry.version for entry in proto.opset_import}
    if written.get("") != opset:
        raise ConversionError(
            f"asked for ONNX opset {opset}, the exporter wrote {written.get('')}",
            f"leave --opset out, or pass --opset {written.get('')}",
        )
    _strip(proto)
    _name_free_dimensions(proto, capture)
    onnx.helper.set_model_props(proto, dict(capture.metadata))
    proto.producer_name = "slide-deploy"
    proto.producer_version = capture.metadata.get("slide_deploy", "")
    proto.graph.name = capture.metadata.get("model", "model")
    proto.doc_string = capture.metadata.get("description", "")
    onnx.checker.check_model(proto)
    onnx.save(proto, path)


def _strip(message: Any) -> None:
    """Drop notes at every level: the exporter leaves paths and lines of source code in them."""
    for field, value in message.ListFields():
        if field.name in ("doc_string", "metadata_props"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                _strip(part)


def _name_free_dimensions(proto: Any, capture: Capture) -> None:
    pairs = (
        *zip(proto.graph.input, capture.inputs, strict=True),
        *zip(proto.graph.output, capture.outputs, strict=True),
    )
    for value, spec in pairs:
        for dimension, size in zip(value.type.tensor_type.shape.dim, spec.shape, strict=True):
            if isinstance(size, str):
                dimension.dim_param = size


EXPORTER = Exporter(
    target="onnx",
    title="ONNX",
    file_name=lambda stem: f"{stem}.onnx",
    write=write,
    packages=("torch", "onnx", "onnxscript"),
    extra="onnx",
)
