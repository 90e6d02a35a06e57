"""Runs OpenVINO IR in the CPU plugin, in float32."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from slide_deploy.errors import ArtifactError
from slide_deploy.protocols import Arrays, Runtime, Session
from slide_deploy.types import Fidelity, TensorSpec
from slide_deploy.validators._quantized.openvino import (
    float_operations,
    quantized_types,
    take_apart,
    without_telemetry,
)
from slide_deploy.validators._widened.openvino import widen

__all__ = ["RUNTIME"]

FOLDER = "_openvino_model"
PLUMBING = ("Parameter", "Result", "Constant")


def open_session(path: Path, *, threads: int = 1) -> Session:
    """Load the folder's one .xml with its .bin."""
    without_telemetry()
    import openvino
    from openvino import properties

    descriptions = sorted(path.glob("*.xml"))
    if len(descriptions) != 1:
        raise ArtifactError(
            f"{path} has {len(descriptions)} .xml files, but an OpenVINO model has one",
            "export it again",
        )
    core = openvino.Core()
    model = core.read_model(descriptions[0])
    # By default the plugin uses bf16 or f16 if the processor supports it, and 8-bit activations
    # where the weights alone are quantized.
    settings: dict[Any, Any] = {
        properties.hint.inference_precision: openvino.Type.f32,
        properties.hint.dynamic_quantization_group_size: 0,
        properties.inference_num_threads: threads,
    }
    compiled = core.compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    outputs = tuple(map(_spec, model.outputs))

    def run(feeds: Arrays) -> dict[str, np.ndarray]:
        request.infer(dict(feeds))
        return {spec.name: request.get_tensor(spec.name).data.copy() for spec in outputs}

    operators = Counter(
        f"{node.type_info.version_id}::{node.get_type_name()}"
        for node in model.get_ops()
        if node.get_type_name() not in PLUMBING
    )
    stored = Counter[str]()
    for node in model.get_ops():
        if node.get_type_name() == "Constant":
            stored[node.get_element_type().get_type_name()] += math.prod(node.get_shape())
    half = stored["f16"] > stored["f32"]  # one that nothing uses decides nothing
    quantized = quantized_types(model)
    ran = compiled.get_property(properties.hint.inference_precision).to_dtype().name
    files = {descriptions[0].name, descriptions[0].with_suffix(".bin").name}
    return Session(
        inputs=tuple(map(_spec, model.inputs)),
        outputs=outputs,
        run=run,
        operators=operators,
        runtime=f"OpenVINO {openvino.__version__.split('-')[0]} CPU",
        values=lambda feeds: _values(descriptions[0], feeds),
        precision=_precision(ran, half, quantized, compiled),
        weight_type=quantized[0] if quantized else "float16" if half else "float32",
        compute_type=quantized[1] if quantized else ran,
        other_precision=float_operations(model) if quantized and quantized[1] != ran else (),
        violations=(
            *(f"{f.name} is no part of the model" for f in path.iterdir() if f.name not in files),
            *(f"{kind} {UNSURE[kind]}" for kind in map(_kind, operators) if kind in UNSURE),
        ),
        device="CPU",
        metadata=_metadata(model),
    )


def _precision(ran: str, half: bool, quantized: tuple[str, str] | None, compiled: Any) -> str:
    """What ran, in words; of quantized products, as many as the plugin computes with integers."""
    if quantized is None:
        return f"{ran}, weights stored as float16" if half else ran
    if quantized[1] == ran:
        return f"{ran}, weights stored as int8"
    layers = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    types = [
        layer["runtimePrecision"].astype(str)
        for layer in layers
        if layer["layerType"].astype(str) in COMPILED_PRODUCTS
    ]
    integers = sum(name in ("i8", "u8") for name in types)
    return f"int8 in {integers} of {len(types)} products, {ran} elsewhere"


# The plugin's names of products.
COMPILED_PRODUCTS = ("Convolution", "FullyConnected", "MatMul")


def _metadata(model: Any) -> dict[str, str]:
    info = model.get_rt_info()
    own = info["slide_deploy"] if model.has_rt_info(["slide_deploy"]) else {}
    return {key: value.astype(str) for key, value in own.items()}


# What a few runs could miss.
UNSURE = {
    **dict.fromkeys(("RandomUniform", "Multinomial"), "draws random numbers"),
    **dict.fromkeys(("ReadValue", "Assign"), "keeps state between runs"),
    **dict.fromkeys(("If", "Loop"), "may compute something else for other inputs"),
}


def _kind(operator: str) -> str:
    return operator.rpartition("::")[2]


def _values(description: Path, feeds: Arrays) -> Iterator[np.ndarray]:
    import openvino
    from openvino import properties

    core = openvino.Core()
    model = core.read_model(description)
    model.reshape({name: list(value.shape) for name, value in feeds.items()})
    constant = {"Constant", "Result", "Parameter"}
    model.add_outputs(
        [
            port
            for node in model.get_ordered_ops()
            if node.get_type_name() not in constant
            for port in node.outputs()
            if port.get_element_type().is_real() and not _only_constants(node)
        ]
    )
    hint = {properties.hint.inference_precision: openvino.Type.f32}
    results = core.compile_model(model, "CPU", hint)(dict(feeds))
    yield from (results[index] for index in range(len(results)))


def _only_constants(node: Any) -> bool:
    """Whether a node only depends on weights, so that the plugin folds it."""
    return all(value.get_node().get_type_name() == "Constant" for value in node.input_values())


def _spec(port: Any) -> TensorSpec:
    shape = tuple(
        size.get_length() if size.is_static else "batch" for size in port.get_partial_shape()
    )
    return TensorSpec(port.get_any_name(), shape, port.get_element_type().to_dtype().name)


RUNTIME = Runtime(
    target="openvino",
    recognises=lambda path: path.name.endswith(FOLDER),
    open=open_session,
    fidelity=lambda: Fidelity.NATIVE,
    packages=("openvino",),
    extra="openvino",
    standard_domains=frozenset(f"opset{number}" for number in range(1, 18)),
    take_apart=take_apart,
    operator_errors={"erf": 5.1e-7, "sigmoid": 5e-8, "softplus": 2e-6},  # measured, version 2026.4
    widen=widen,
)
