"""Runs OpenVINO IR in the CPU plugin, in float32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from slide_deploy.errors import ArtifactError
from slide_deploy.protocols import Arrays, Runtime, Session
from slide_deploy.types import Fidelity, TensorSpec

__all__ = ["RUNTIME"]

FOLDER = "_openvino_model"


def open_session(path: Path, *, threads: int = 1) -> Session:
    """Load the folder's one .xml with its .bin."""
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
    # By default the plugin uses bf16 or f16 if the processor supports it.
    settings: dict[Any, Any] = {
        properties.hint.inference_precision: openvino.Type.f32,
        properties.inference_num_threads: threads,
    }
    compiled = core.compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    outputs = tuple(map(_spec, model.outputs))

    def run(feeds: Arrays) -> dict[str, np.ndarray]:
        request.infer(dict(feeds))
        return {spec.name: request.get_tensor(spec.name).data.copy() for spec in outputs}

    plumbing = {"Parameter", "Result", "Constant"}
    operators = Counter(
        f"{node.type_info.version_id}::{node.get_type_name()}"
        for node in model.get_ops()
        if node.get_type_name() not in plumbing
    )
    stored = {
        node.get_element_type().get_type_name()
        for node in model.get_ops()
        if node.get_type_name() == "Constant"
    }
    ran = compiled.get_property(properties.hint.inference_precision).to_dtype().name
    return Session(
        inputs=tuple(map(_spec, model.inputs)),
        outputs=outputs,
        run=run,
        operators=operators,
        runtime=f"OpenVINO {openvino.__version__.split('-')[0]} CPU",
        values=lambda feeds: _values(descriptions[0], feeds),
        precision=f"{ran}, weights stored as float16" if "f16" in stored else ran,
        weight_type="float16" if "f16" in stored else "float32",
        compute_type=ran,
        device="CPU",
        metadata=_metadata(model),
    )


def _metadata(model: Any) -> dict[str, str]:
    info = model.get_rt_info()
    own = info["slide_deploy"] if model.has_rt_info(["slide_deploy"]) else {}
    return {key: value.astype(str) for key, value in own.items()}


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
    operator_errors={"erf": 5.1e-7, "sigmoid": 5e-8, "softplus": 2e-6},  # measured, version 2026.4
)
