"""Takes a quantized OpenVINO model apart."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from slide_deploy.errors import ArtifactError
from slide_deploy.protocols import Arrays, QuantizedTensor

__all__ = ["float_operations", "quantized_types", "take_apart", "without_telemetry"]

QUANTIZE, LEVELS = "FakeQuantize", 256

# Operations that are quantized, where their operands are.
PRODUCTS = ("Convolution", "GroupConvolution", "MatMul")


def take_apart(
    path: Path, program: Path, restored: Path, runs: Iterable[Arrays]
) -> Iterator[QuantizedTensor]:
    """See `Runtime.take_apart`. Raises ArtifactError where `path` quantizes what the float32 model
    `program` does not have."""
    without_telemetry()
    import openvino

    artifact, origin = (
        openvino.Core().read_model(next(folder.glob("*.xml"))) for folder in (path, program)
    )
    known = {node.get_friendly_name(): node for node in origin.get_ops()}
    scaled = [node for node in artifact.get_ops() if _integers(node) is not None]
    quantizers = [n for n in artifact.get_ops() if n.get_type_name() == QUANTIZE]
    weights = [(node, _original(node, known)) for node in scaled]
    sources = [(node, _source(node, known)) for node in quantizers]
    tensors = [_weights(node, constant) for node, constant in weights]
    for node, constant in weights:
        last = _widened(node)
        value = np.asarray(constant.data, np.float32).reshape(last.get_output_shape(0))
        last.output(0).replace(openvino.opset13.constant(value).output(0))
    for node in quantizers:
        node.output(0).replace(node.input_value(0))
    restored.mkdir()
    openvino.save_model(artifact, restored / "model.xml", compress_to_fp16=False)
    yield from tensors
    observed = _observed(origin, [port for _, port in sources], runs)
    for (node, port), ends in zip(sources, observed, strict=True):
        yield _activation(node, port.get_node().get_friendly_name(), ends)


def without_telemetry() -> None:
    """Let OpenVINO, which is imported next, send nothing to its makers."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # not to import


def quantized_types(model: Any) -> tuple[str, str] | None:
    """The types of quantized weights and of activations; None where no weight is quantized."""
    if not any(_integers(node) is not None for node in model.get_ops()):
        return None
    fake = any(node.get_type_name() == QUANTIZE for node in model.get_ops())
    return "int8", "int8" if fake else "float32"


def float_operations(model: Any) -> tuple[str, ...]:
    """The products that take a value which is not quantized, by name."""
    return tuple(
        f"{node.get_friendly_name()} ({node.get_type_name()})"
        for node in model.get_ops()
        if node.get_type_name() in PRODUCTS
        and not all(_is_quantized(value.get_node()) for value in node.input_values())
    )


def _is_quantized(node: Any) -> bool:
    """Whether a value comes from a quantizer, through operations that only move it."""
    moving = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Convert", "Gather", "Concat", "Pad")
    while node.get_type_name() in moving:
        node = node.input_value(0).get_node()
    return node.get_type_name() == QUANTIZE or _integers(node) is not None


def _integers(node: Any) -> Any | None:
    """The constant of 8-bit integers that `node` multiplies by a constant scale, if it does."""
    if node.get_type_name() != "Multiply":
        return None
    value, scale = (port.get_node() for port in node.input_values())
    if value.get_type_name() != "Convert" or scale.get_type_name() != "Constant":
        return None
    source = value.input_value(0).get_node()
    is_int8 = (
        source.get_type_name() == "Constant" and source.get_element_type().get_type_name() == "i8"
    )
    return source if is_int8 else None


def _widened(node: Any) -> Any:
    """The node that gives the weights in float32: some quantizers store scales in float16."""
    reader = next(iter(node.output(0).get_target_inputs())).get_node()
    return reader if reader.get_type_name() == "Convert" else node


def _original(node: Any, known: dict[str, Any]) -> Any:
    """The constant of the float32 model in place of these weights."""
    reader = next(iter(_widened(node).output(0).get_target_inputs()))
    user = known.get(reader.get_node().get_friendly_name())
    found = user and user.input_value(reader.get_index()).get_node()
    if (
        not found
        or found.get_type_name() != "Constant"
        or list(found.get_output_shape(0)) != list(node.get_output_shape(0))
    ):
        raise ArtifactError(
            f"the float32 artifact has no weights of the shape of {node.get_friendly_name()} in "
            "its place",
            "verify it with the options that it was exported with",
        )
    return found


def _source(node: Any, known: dict[str, Any]) -> Any:
    """The value of the float32 model that this node quantizes."""
    given = node.input_value(0)
    name = given.get_node().get_friendly_name()
    found = known.get(name)
    if found is None or given.get_index() >= found.get_output_size():
        raise ArtifactError(
            f"the float32 artifact has no value {name}",
            "verify it with the options that it was exported with",
        )
    return found.output(given.get_index())


def _weights(node: Any, constant: Any) -> QuantizedTensor:
    source = _integers(node)
    assert source is not None
    integers = np.array(source.data)
    scale = np.array(node.input_value(1).get_node().data)
    if (scale < 0).any():  # NNCF's compression makes the weight of the largest size the lowest
        integers = integers * np.sign(scale).astype(np.int16)
        scale = np.abs(scale)
    # Grouped convolutions have a scale for each group and channel: the first axes, as one.
    kept = int(np.prod(scale.shape)) if scale.size > 1 else 1
    leading = int(np.prod(integers.shape[: integers.ndim - _inner_axes(scale)]))
    if scale.size > 1 and kept != leading:
        raise ArtifactError(
            f"{node.get_friendly_name()} has scales along other axes than the first ones",
            "export it again",
        )
    return QuantizedTensor(
        name=constant.get_friendly_name(),
        kind="int8",
        low=-128,
        high=127,
        scale=scale.reshape(-1),
        zero_point=np.zeros(scale.size, np.int8),
        axis=0,
        integers=integers.reshape(kept, -1),
        weights=np.array(constant.data, np.float32).reshape(kept, -1),
    )


def _inner_axes(scale: np.ndarray) -> int:
    """The number of last axes along which there is one scale."""
    return next((n for n, size in enumerate(reversed(scale.shape)) if size > 1), scale.ndim)


def _activation(node: Any, name: str, observed: tuple[float, float]) -> QuantizedTensor:
    ends = [np.array(node.input_value(index).get_node().data) for index in range(1, 5)]
    if node.get_attributes()["levels"] != LEVELS or not (
        np.array_equal(ends[0], ends[2]) and np.array_equal(ends[1], ends[3])
    ):
        raise ArtifactError(
            f"{name} is not quantized to {LEVELS} levels of one range", "export it again"
        )
    scale = np.asarray((ends[1] - ends[0]) / (LEVELS - 1))
    return QuantizedTensor(
        name=name,
        kind="int8",
        low=-128,
        high=127,
        scale=scale,
        zero_point=np.asarray(-128 - ends[0] / scale),
        observed=observed,
    )


def _observed(origin: Any, ports: list[Any], runs: Iterable[Arrays]) -> list[tuple[float, float]]:
    """The smallest and the largest value of each port in the float32 model, over all runs."""
    import openvino
    from openvino import properties

    inner = {
        f"observed {port.get_node().get_friendly_name()} {port.get_index()}": port
        for port in ports
        if port.get_node().get_type_name() not in ("Parameter", "Constant")
    }
    for name, port in inner.items():
        port.get_tensor().add_names({name})
    origin.add_outputs(list(inner))
    hint = {properties.hint.inference_precision: openvino.Type.f32}
    compiled = openvino.Core().compile_model(origin, "CPU", hint)
    ends: list[list[float]] = [[] for _ in ports]
    for feeds in runs:
        results = compiled(dict(feeds))
        for port, found in zip(ports, ends, strict=True):
            node = port.get_node()
            name = f"observed {node.get_friendly_name()} {port.get_index()}"
            if name in inner:
                value = results[name]
            elif node.get_type_name() == "Constant":
                value = node.data
            else:
                value = feeds[port.get_any_name()]
            found += [float(value.min()), float(value.max())]
    return [(min(found), max(found)) for found in ends]
