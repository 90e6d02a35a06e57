"""The smallest piece of an ONNX file that computes something else than the clean file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from slide_deploy.errors import UsageError
from slide_deploy.validators._reduce.onnx import reduce

RNG = np.random.default_rng(0)
WEIGHTS = {name: RNG.standard_normal((6, 6)).astype(np.float32) for name in ("one", "two", "three")}
RUNS = [{"x": RNG.standard_normal((1, 6)).astype(np.float32)} for _ in range(2)]


def write(path: Path, *, wrong: str = "", middle: str = "b") -> Path:
    """Three products, with GELU between the second and the third."""
    values = {n: (1.01 if n == wrong else 1) * value for n, value in WEIGHTS.items()}
    nodes = [
        helper.make_node("MatMul", ["x", "one"], ["a"], "first"),
        helper.make_node("MatMul", ["a", "two"], [middle], "second"),
        helper.make_node("Gelu", [middle], ["c"], "active"),
        helper.make_node("MatMul", ["c", "three"], ["y"], "third"),
    ]
    shape = [("x", [1, 6]), ("y", [1, 6])]
    given, made = (helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in shape)
    tensors = [numpy_helper.from_array(v.astype(np.float32), n) for n, v in values.items()]
    graph = helper.make_graph(nodes, "small", [given], [made], tensors)
    opset = helper.make_opsetid("", 20)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), path)
    return path


@pytest.mark.parametrize(
    ("wrong", "node"), [("one", "first"), ("two", "second"), ("three", "third")]
)
def test_one_wrong_operator_is_found(tmp_path: Path, wrong: str, node: str) -> None:
    clean, broken = write(tmp_path / "a.onnx"), write(tmp_path / "b.onnx", wrong=wrong)
    found = reduce(broken, clean, tmp_path / "piece.onnx", RUNS)
    assert (found.operators, found.total, found.differing) == ((f"MatMul {node}",), 4, 1)
    piece = onnx.load(tmp_path / "piece.onnx")
    onnx.checker.check_model(piece)
    assert [tensor.name for tensor in piece.graph.initializer] == [wrong]
    for side, runs in ((piece.graph.input, found.inputs), (piece.graph.output, found.outputs)):
        assert [[value.name for value in side]] * len(RUNS) == [list(run) for run in runs]
    for made, rounded in zip(found.outputs, found.rounded, strict=True):
        assert all(np.allclose(made[name], rounded[name], rtol=1e-5) for name in made)


def test_operators_between_values_of_other_names_belong_together(tmp_path: Path) -> None:
    clean = write(tmp_path / "a.onnx")
    renamed = write(tmp_path / "b.onnx", wrong="two", middle="renamed")
    found = reduce(renamed, clean, tmp_path / "piece.onnx", RUNS)
    assert found.operators == ("MatMul second", "Gelu active")


def test_equal_files_have_no_such_piece(tmp_path: Path) -> None:
    clean = write(tmp_path / "a.onnx")
    with pytest.raises(UsageError, match="no piece of"):
        reduce(write(tmp_path / "b.onnx", middle="renamed"), clean, tmp_path / "p.onnx", RUNS)
    assert not (tmp_path / "p.onnx").exists()
