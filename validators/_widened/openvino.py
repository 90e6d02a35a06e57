"""Widens an OpenVINO model with float16 weights to float32 ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from slide_deploy.protocols import RoundedTensor
from slide_deploy.validators._quantized.openvino import without_telemetry
from slide_deploy.validators._widened.pairs import paired

__all__ = ["widen"]


def widen(path: Path, program: Path, restored: Path) -> Iterator[RoundedTensor]:
    """See `Runtime.widen`."""
    without_telemetry()
    import openvino

    artifact, origin = (
        openvino.Core().read_model(next(folder.glob("*.xml"))) for folder in (path, program)
    )
    for node, alike in paired(_operations(artifact), _operations(origin)):
        for own, other in zip(node.inputs(), alike.inputs(), strict=False):
            half, single = _constant(own), _constant(other)
            if half is None or single is None:
                continue
            name, values = single.get_friendly_name(), np.array(single.data)
            yield RoundedTensor(name, np.array(half.data), values)
            own.replace_source_output(openvino.opset13.constant(values).output(0))
    restored.mkdir()
    openvino.save_model(artifact, restored / "model.xml", compress_to_fp16=False)


def _operations(model: Any) -> list[tuple[str, Any]]:
    """In the order of the file, which both artifacts have from one converter."""
    return [
        (node.get_type_name(), node)
        for node in model.get_ordered_ops()
        if node.get_type_name() not in ("Constant", "Convert")
    ]


def _constant(port: Any) -> Any | None:
    """The floating-point constant that an input reads, perhaps widened by a Convert."""
    node = port.get_source_output().get_node()
    if node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    is_float = node.get_type_name() == "Constant" and node.get_element_type().is_real()
    return node if is_float else None
