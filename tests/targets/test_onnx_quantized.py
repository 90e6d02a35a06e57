"""Quantized ONNX files are taken apart: sound ones have no problem, damage is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from slide_deploy.errors import ArtifactError, UsageError
from slide_deploy.exporters._quantize.onnx import quantize
from slide_deploy.parity.quantization import quantization_problem
from slide_deploy.protocols import Calibration
from slide_deploy.types import Options
from slide_deploy.validators import onnx as runtime
from slide_deploy.validators._quantized.onnx import quantized_types, take_apart

RNG = np.random.default_rng(0)
RUNS = [{"x": RNG.standard_normal((1, 4, 6, 6)).astype(np.float32)} for _ in range(4)]
ABOUT = {"model": "small", "calibration": "real"}
CONSTANTS = {
    "conv.weight": RNG.standard_normal((8, 4, 3, 3)),
    "conv.bias": RNG.standard_normal(8),
    "norm.weight": 1 + 0.1 * RNG.standard_normal(6),
    "norm.bias": RNG.standard_normal(6),
    "fc.weight": RNG.standard_normal((6, 5)),
    "other.weight": 3 * RNG.standard_normal((6, 5)),
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolution, a LayerNorm and two products of its output, which are added."""
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["a"], "conv"),
        helper.make_node(
            "LayerNormalization", ["a", "norm.weight", "norm.bias"], ["b"], "norm", axis=-1
        ),
        helper.make_node("MatMul", ["b", "fc.weight"], ["c"], "fc"),
        helper.make_node("MatMul", ["b", "other.weight"], ["d"], "other"),
        helper.make_node("Add", ["c", "d"], ["e"], "add"),
        helper.make_node("MatMul", ["e", "last.weight"], ["y"], "last"),
    ]
    nodes[0].attribute.append(helper.make_attribute("pads", [1, 1, 1, 1]))
    last = {"last.weight": RNG.standard_normal((5, 5))}
    weights = [
        numpy_helper.from_array(value.astype(np.float32), name)
        for name, value in (CONSTANTS | last).items()
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4, 6, 6])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 8, 6, 5])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    path = tmp_path_factory.mktemp("program") / "small.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module", params=["w8a8", "w8a16"])
def artifact(request, program: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param) / "small.onnx"
    quantize(program, path, Calibration(RUNS, ABOUT), Options(precision=request.param))
    return path


def outputs(path: Path) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path)
    return [session.run(["y"], run)[0] for run in RUNS]


def problems(artifact: Path, program: Path, restored: Path) -> list[str]:
    tensors = take_apart(artifact, program, restored, RUNS)
    return [problem for tensor in tensors if (problem := quantization_problem(tensor))]


def test_a_sound_file_has_no_problem(artifact: Path, program: Path, tmp_path: Path) -> None:
    tensors = list(take_apart(artifact, program, tmp_path / "restored.onnx", RUNS))
    weights = sorted(t.name for t in tensors if t.weights is not None)
    ranges = sorted(t.name for t in tensors if t.observed is not None)
    assert weights == ["conv.bias", "conv.weight", "fc.weight", "last.weight", "other.weight"]
    assert ranges == ["a", "b", "c", "d", "e", "x", "y"]
    assert [quantization_problem(t) for t in tensors] == [""] * len(tensors)


def test_without_quantization_it_is_the_float32_program(
    artifact: Path, program: Path, tmp_path: Path
) -> None:
    problems(artifact, program, tmp_path / "restored.onnx")
    restored = onnx.load(tmp_path / "restored.onnx")
    kinds = {node.op_type for node in restored.graph.node}
    assert kinds == {"Conv", "LayerNormalization", "MatMul", "Add"}
    pairs = zip(outputs(tmp_path / "restored.onnx"), outputs(program), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)
    quantized = zip(outputs(artifact), outputs(program), strict=True)
    assert not any(np.allclose(a, b, atol=1e-4) for a, b in quantized)


def test_the_file_says_how_it_was_calibrated(artifact: Path) -> None:
    proto = onnx.load(artifact)
    assert {entry.key: entry.value for entry in proto.metadata_props} == ABOUT
    kinds = {"uint16": "w8a16", "int8": "w8a8"}
    weights, activations = quantized_types(proto)
    assert (weights, kinds[activations]) == ("int8", artifact.parent.name[:-1])


def test_two_quantizations_give_the_same_bytes(
    artifact: Path, program: Path, tmp_path: Path
) -> None:
    precision = artifact.parent.name[:-1]
    again = tmp_path / "small.onnx"
    quantize(program, again, Calibration(RUNS, ABOUT), Options(precision=precision))
    assert again.read_bytes() == artifact.read_bytes()


def edited(artifact: Path, path: Path, name: str, edit: Callable[[np.ndarray], Any]) -> Path:
    """The file with the initializer `name` replaced by what `edit` makes of it."""
    proto = onnx.load(artifact)
    (tensor,) = [t for t in proto.graph.initializer if t.name == name]
    value = numpy_helper.to_array(tensor).copy()
    changed = np.asarray(edit(value), value.dtype)
    tensor.CopyFrom(numpy_helper.from_array(changed, name))
    onnx.save(proto, path)
    return path


def one_more(value: np.ndarray) -> np.ndarray:
    value.flat[3] += 1 if value.flat[3] < 100 else -1
    return value


@pytest.mark.parametrize(
    ("name", "edit", "named"),
    [
        ("conv.weight_quantized", one_more, "conv.weight has 1 of 288 weights"),
        ("conv.weight_scale", lambda v: 1.05 * v, "conv.weight has a scale"),
        ("conv.weight_zero_point", lambda v: v + 1, "conv.weight has 2"),
        ("conv.bias_quantized", one_more, "conv.bias has 1 of 8 weights"),
        ("conv.bias_quantized_scale", lambda v: 1.05 * v, "conv.bias has a scale"),
        ("fc.weight_scale", lambda v: v[::-1], "fc.weight has a scale"),
        ("x_scale", lambda v: 0.9 * v, "x has the range"),
        ("b_zero_point", lambda v: v + 1, "b has the range"),
    ],
)
def test_a_damaged_number_is_named(
    artifact: Path, program: Path, tmp_path: Path, name: str, edit: Any, named: str
) -> None:
    broken = edited(artifact, tmp_path / "broken.onnx", name, edit)
    found = problems(broken, program, tmp_path / "restored.onnx")
    assert any(problem.startswith(named) for problem in found), found


def test_a_changed_float_operator_stays_in_the_restored_file(
    artifact: Path, program: Path, tmp_path: Path
) -> None:
    broken = edited(artifact, tmp_path / "broken.onnx", "norm.weight", lambda v: 1.01 * v)
    assert problems(broken, program, tmp_path / "restored.onnx") == []
    made, meant = outputs(tmp_path / "restored.onnx"), outputs(program)
    assert not np.allclose(made[0], meant[0], rtol=1e-3)


def test_exchanged_weights_stay_exchanged_in_the_restored_file(
    artifact: Path, program: Path, tmp_path: Path
) -> None:
    """Two products of the same shape that read each other's weights."""
    proto = onnx.load(artifact)
    first, other = (next(n for n in proto.graph.node if n.name == name) for name in ("fc", "other"))
    first.input[1], other.input[1] = other.input[1], first.input[1]
    onnx.save(proto, tmp_path / "broken.onnx")
    found = problems(tmp_path / "broken.onnx", program, tmp_path / "restored.onnx")
    assert any("not the nearest integers" in p or "as its weights need" in p for p in found), found


def test_another_scale_behind_than_before_is_refused(
    artifact: Path, program: Path, tmp_path: Path
) -> None:
    proto = onnx.load(artifact)
    (reader,) = [n for n in proto.graph.node if n.output[0] == "x_DequantizeLinear_Output"]
    scale = numpy_helper.from_array(np.array(1.0, np.float32), "another_scale")
    proto.graph.initializer.append(scale)
    reader.input[1] = "another_scale"
    onnx.save(proto, tmp_path / "broken.onnx")
    with pytest.raises(ArtifactError, match="another scale or zero point"):
        problems(tmp_path / "broken.onnx", program, tmp_path / "restored.onnx")


def test_16_bit_activations_need_a_new_opset(program: Path, tmp_path: Path) -> None:
    options = Options(precision="w8a16", opset=20)
    with pytest.raises(UsageError, match="from opset 21 on"):
        quantize(program, tmp_path / "small.onnx", Calibration(RUNS, ABOUT), options)


def test_every_value_that_a_quantized_file_computes_can_be_seen(artifact: Path) -> None:
    """Quantizers leave descriptions of values that they removed."""
    values = list(runtime.open_session(artifact).values(RUNS[0]))
    assert {value.shape for value in values} >= {(1, 8, 6, 6), (1, 8, 6, 5)}
