"""Writes ONNX files with the torch.export-based exporter: standard operators, one file."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slide_deploy.errors import ConversionError, UsageError
from slide_deploy.exporters._repeated import table_of
from slide_deploy.types import Options, Precision

if TYPE_CHECKING:
    from slide_deploy.capture import Capture

__all__ = ["DEFAULT_OPSET", "parse_opset", "write"]

# The first with Gelu, which is one kernel in onnxruntime instead of five and saves 4 % of the time
# of Slide-Swin-T. onnxruntime supports it since 1.17.
DEFAULT_OPSET = 20

# torch writes 18 and later ones; 17 is converted from 18 here. 23 is the newest in torch and onnx
# 1.18.
OPSETS = range(17, 24)
OLDEST_OF_TORCH = 18


def parse_opset(value: object) -> int:
    """A supported opset; UsageError for any other."""
    text = str(value)
    if not (text.isascii() and text.isdigit() and int(text) in OPSETS):
        raise UsageError(
            f"ONNX opset {text[:20]!r} cannot be written: LayerNormalization came with opset 17, "
            f"and PyTorch's exporter ends at {OPSETS[-1]}",
            f"use {OPSETS[0]} to {OPSETS[-1]}, or omit it for {DEFAULT_OPSET}",
        )
    return int(text)


def write(capture: Capture, path: Path, options: Options) -> None:
    """Write `path`; ConversionError if the exporter wrote another opset than the requested one."""
    import onnx
    import torch

    if options.precision == Precision.FLOAT16:
        capture = capture.in_half()
    opset = DEFAULT_OPSET if options.opset is None else options.opset
    program = torch.onnx.export(
        capture.program,
        capture.example,
        dynamo=True,
        opset_version=max(opset, OLDEST_OF_TORCH),
        input_names=[spec.name for spec in capture.inputs],
        output_names=[spec.name for spec in capture.outputs],
        external_data=False,
        verbose=False,
    )
    assert program is not None  # only the deprecated exporter returns nothing
    proto = program.model_proto
    if opset < OLDEST_OF_TORCH:
        _convert_to_opset_17(proto)
    written = {entry.domain: entry.version for entry in proto.opset_import}
    if written.get("") != opset:
        raise ConversionError(
            f"ONNX opset {opset} was requested, but the exporter wrote {written.get('')}",
            f"omit --opset, or pass --opset {written.get('')}",
        )
    _strip(proto)
    _store_tables(proto.graph)
    _share_constants(proto.graph, {*capture.program.state_dict, *capture.program.constants})
    _name_free_dimensions(proto, capture)
    onnx.helper.set_model_props(proto, dict(capture.metadata))
    proto.producer_name = "slide-deploy"
    proto.producer_version = capture.metadata.get("slide_deploy", "")
    proto.graph.name = capture.metadata.get("model", "model")
    proto.doc_string = capture.metadata.get("description", "")
    onnx.checker.check_model(proto)
    onnx.save(proto, path)


def _convert_to_opset_17(proto: Any) -> None:
    """Rewrite an opset 18 graph: reductions take their axes as attribute, Split counts its outputs.

    Raises ConversionError for any other operator that opset 18 changed or added.
    """
    import onnx

    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if onnx.defs.get_schema(node.op_type, OLDEST_OF_TORCH).since_version < OLDEST_OF_TORCH:
            continue
        kept = [a for a in node.attribute if a.name not in ("num_outputs", "noop_with_empty_axes")]
        if node.op_type.startswith("Reduce") and all(name in constants for name in node.input[1:]):
            if axes := [onnx.numpy_helper.to_array(constants[name]) for name in node.input[1:]]:
                kept.append(onnx.helper.make_attribute("axes", axes[0].tolist()))
            del node.input[1:]
        elif node.op_type != "Split" and not (node.op_type == "Pad" and len(node.input) < 4):
            raise ConversionError(
                f"operator {node.op_type} of this model cannot be written in ONNX opset 17",
                f"omit --opset, or pass --opset {OLDEST_OF_TORCH}",
            )
        del node.attribute[:]
        node.attribute.extend(kept)
    used = {name for node in proto.graph.node for name in node.input}
    for tensor in [tensor for tensor in proto.graph.initializer if tensor.name not in used]:
        proto.graph.initializer.remove(tensor)
    (version,) = (entry for entry in proto.opset_import if not entry.domain)
    version.version = 17
    proto.ir_version = onnx.helper.OP_SET_ID_VERSION_MAP["ai.onnx", 17]


def _store_tables(graph: Any) -> None:
    """Store constants with repeated columns as a table and a Gather, which runtimes compute when
    they load the model."""
    import onnx

    for tensor in list(graph.initializer):
        if found := table_of(onnx.numpy_helper.to_array(tensor)):
            names = f"{tensor.name}.table", f"{tensor.name}.index"
            graph.initializer.remove(tensor)
            graph.initializer.extend(map(onnx.numpy_helper.from_array, found, names))
            gather = onnx.helper.make_node("Gather", names, [tensor.name], tensor.name, axis=1)
            graph.node.insert(0, gather)


def _share_constants(graph: Any, named: Collection[str]) -> None:
    """Store equal constants once, except those `named` by the model, whose names tell their block,
    and those that graphs inside of control flow read."""
    import onnx

    kept = {*named, *(value.name for value in graph.output)}
    kept |= {name for node in graph.node for name in _read_inside(node)}
    first: dict[tuple[object, ...], str] = {}
    shared: dict[str, str] = {}
    for tensor in list(graph.initializer):
        if tensor.name in kept:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        digest = hashlib.sha256(values.tobytes()).digest()
        name = first.setdefault((tensor.data_type, values.shape, digest), tensor.name)
        if name != tensor.name:
            shared[tensor.name] = name
            graph.initializer.remove(tensor)
    for node in graph.node:
        node.input[:] = [shared.get(name, name) for name in node.input]


def _read_inside(node: Any) -> Iterator[str]:
    """What the graphs in the attributes of a node read."""
    graphs = [own for a in node.attribute for own in (a.g, *a.graphs) if own.node]
    for inner in (inner for graph in graphs for inner in graph.node):
        yield from inner.input
        yield from _read_inside(inner)


def _strip(message: Any) -> None:
    """Drop the exporter's notes at every level, which contain paths and lines of source code."""
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
