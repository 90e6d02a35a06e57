"""Artifacts that a careful liar makes: right where it was looked before, wrong elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import slide_deploy
from slide_deploy import Check, Options, TensorSpec, VerificationPolicy, export, load, wrap
from slide_deploy.artifacts.golden import load_golden
from slide_deploy.loading.loader import Model
from slide_deploy.types import Verdict
from slide_deploy.utils.quiet import quiet
from slide_deploy.verification.recorded import verify_recorded

CopyOf = Callable[[str], Path]
Nodes = list[onnx.NodeProto]


@pytest.fixture(scope="module")
def lone(lone_module: Path) -> Model:
    return load(lone_module, image_size=(6, 7))


@pytest.fixture
def attacked(artifact: CopyOf) -> CopyOf:
    """attacked(target): an artifact without a manifest, for a test to change."""

    def copy(target: str) -> Path:
        path = artifact(target)
        (path.parent / "manifest.json").unlink()
        return path

    return copy


def verified(path: Path, model: Model, **policy: Any) -> Check:
    (check,) = slide_deploy.verify(path, model, policy=VerificationPolicy(**policy)).checks
    return check


def failed(check: Check, *words: str) -> None:
    assert check.verdict is Verdict.FAIL
    for word in words:
        assert word in "\n".join(check.problems)


def on_input(path: Path, make: Callable[[str, str], Nodes], **constants: np.ndarray) -> None:
    """Put nodes, which make(source, result) gives, between the input and what reads it."""
    model = onnx.load(path)
    source = model.graph.input[0].name
    for node in model.graph.node:
        node.input[:] = ["changed" if name == source else name for name in node.input]
    _insert(model, 0, make(source, "changed"), constants)
    onnx.save(model, path)


def on_output(path: Path, make: Callable[[str, str], Nodes], **constants: np.ndarray) -> None:
    """Put nodes, which make(source, result) gives, in front of the output."""
    model = onnx.load(path)
    result = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["honest" if name == result else name for name in node.output]
    _insert(model, len(model.graph.node), make("honest", result), constants)
    onnx.save(model, path)


def _insert(model: Any, place: int, nodes: Nodes, constants: dict[str, np.ndarray]) -> None:
    for number, node in enumerate(nodes):
        model.graph.node.insert(place + number, node)
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))


def node(kind: str, *names: str, **attributes: Any) -> onnx.NodeProto:
    """An ONNX node; the last name is its output."""
    return helper.make_node(kind, list(names[:-1]), [names[-1]], **attributes)


# Precision


def add_cast(path: Path) -> None:
    """An operation of float16 in a Core ML package, whose result nothing uses."""
    from coremltools.proto import MIL_pb2, Model_pb2

    (file,) = path.rglob("*.mlmodel")
    model = Model_pb2.Model.FromString(file.read_bytes())
    function = model.mlProgram.functions["main"]
    (block,) = function.block_specializations.values()
    given = function.inputs[0]
    cast = block.operations.add(type="cast")
    cast.inputs["x"].arguments.add(name=given.name)
    dtype = cast.inputs["dtype"].arguments.add().value
    dtype.type.tensorType.dataType = MIL_pb2.STRING
    dtype.immediateValue.tensor.strings.values.append("fp16")
    result = cast.outputs.add(name="unused", type=given.type)
    result.type.tensorType.dataType = MIL_pb2.FLOAT16
    file.write_bytes(model.SerializeToString())


def test_an_unused_cast_does_not_choose_the_gates(attacked: CopyOf, lone: Model) -> None:
    path = attacked("coreml")
    add_cast(path)
    check = verified(path, lone)
    assert check.verdict is Verdict.PASS, check.problems
    assert {gate.kind for gate in check.gates} == {"max_error", "pooled_error", "systematic_error"}


def test_an_unused_weight_does_not_choose_the_gates(attacked: CopyOf, lone: Model) -> None:
    path = attacked("onnx")
    on_output(path, lambda a, b: [node("Identity", a, b)], unused=np.ones(3, np.float16))
    assert verified(path, lone).weight_type == "float32"


def test_a_file_of_another_precision_fails_by_name(
    lone: Model, tmp_path: Path, run_cli: Any, lone_module: Path
) -> None:
    export(lone, ["onnx"], tmp_path, Options(precision="fp16"))
    path = tmp_path / "lone.onnx"
    failed(verified(path, lone, precision="float32"), "is float16, but float32 was asked for")
    (tmp_path / "manifest.json").unlink()
    told = "lone.onnx is float16, but float32 was asked for (pass --precision fp16"
    failed(verified(path, lone), told)
    given = ("verify", path, "--against", lone_module, "--image-size", "6x7")
    assert run_cli(*given, "--precision", "fp16").code == 0
    run_cli(*given, "--precision", "float7").refused(2, "unknown precision 'float7'")


# Probes that are known


def test_an_artifact_that_knows_the_recorded_probes_fails(artifact: CopyOf, lone: Model) -> None:
    """It tells them by their sums, and answers zeros to anything else."""
    path = artifact("onnx")
    (golden,) = path.parent.glob("*.npz")
    expected = load_golden(golden).expectations
    sums = np.array([e.inputs["features"].sum(dtype=np.float64) for e in expected], np.float32)

    def recognise(honest: str, result: str) -> Nodes:
        return [
            node("ReduceSum", "features", "sum", keepdims=0),
            node("Sub", "sum", "sums", "distance"),
            node("Abs", "distance", "size"),
            node("Less", "size", "near", "known"),
            node("Cast", "known", "flags", to=TensorProto.FLOAT),
            node("ReduceMax", "flags", "any", keepdims=0),
            node("Mul", honest, "any", result),
        ]

    on_output(path, recognise, sums=sums, near=np.float32(np.abs(sums) * 1e-4 + 0.01))
    (path.parent / "manifest.json").unlink()
    check = verified(path, lone)
    failed(check, "probe fresh normal", "probe fresh patchwork")
    assert all("fresh" in problem or "all probes" in problem for problem in check.problems)


@pytest.mark.slow
def test_a_seed_repeats_the_fresh_probes(artifact: CopyOf, lone: Model) -> None:
    path = artifact("torchscript")
    drawn = [
        slide_deploy.verify(path, lone, seed=seed, command="slide-deploy verify").checks[0]
        for seed in (7, 7, 8)
    ]
    first, again, other = ([c.noise_floor for c in check.comparisons] for check in drawn)
    assert first == again != other
    report = slide_deploy.verify(path, lone, seed=7, command="slide-deploy verify")
    assert (report.seed, report.command) == (7, "slide-deploy verify --seed 7")


def test_golden_vectors_alone_are_said_to_be_known(artifact: CopyOf, run_cli: Any) -> None:
    path = artifact("onnx")
    assert verify_recorded(path).seed is None
    out = " ".join(run_cli("verify", path).out.split())
    assert "All probes were known before" in out
    assert "--against model.pth" in out


# Free dimensions


@pytest.fixture(scope="module")
def free_batch(lone: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("free")
    export(lone, ["onnx"], folder, Options(dynamic=True))
    (folder / "manifest.json").unlink()
    return folder / "lone.onnx"


@pytest.mark.parametrize(("kind", "number"), [("Equal", 2), ("Greater", 3)])
def test_an_artifact_that_is_right_at_some_batch_sizes_fails(
    free_batch: Path, lone: Model, tmp_path: Path, kind: str, number: int
) -> None:
    path = tmp_path / "lone.onnx"
    shutil.copy(free_batch, path)

    def only_some(honest: str, result: str) -> Nodes:
        return [
            node("Shape", "features", "batch", start=0, end=1),
            node(kind, "batch", "number", "wrong"),
            node("Not", "wrong", "right"),
            node("Cast", "right", "factor", to=TensorProto.FLOAT),
            node("Mul", honest, "factor", result),
        ]

    on_output(path, only_some, number=np.array([number]))
    failed(verified(path, lone), f"batch of {2 if kind == 'Equal' else 8}")


# Integers


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(100, 4), nn.Linear(4, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.table(ids).mean(1))


class OwnTable(Words):
    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.table.weight[ids].mean(1))


@pytest.mark.parametrize(
    ("kind", "span"),
    [
        pytest.param(Words, None, id="found"),
        pytest.param(OwnTable, (0, 99), id="given", marks=pytest.mark.slow),
    ],
)
def test_an_embedding_without_most_rows_fails(
    kind: type[Words], span: tuple[int, int] | None, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = wrap(kind(), [TensorSpec("ids", (1, 8), "int64", span)])
    assert model.inputs[0].value_range == (0, 99)
    export(model, ["onnx"], tmp_path)
    (tmp_path / "manifest.json").unlink()
    path = tmp_path / "model.onnx"
    assert verified(path, model).verdict is Verdict.PASS
    proto = onnx.load(path)
    (table,) = (t for t in proto.graph.initializer if list(t.dims) == [100, 4])
    rows = numpy_helper.to_array(table).copy()
    rows[2:] = 0
    table.CopyFrom(numpy_helper.from_array(rows, table.name))
    onnx.save(proto, path)
    failed(verified(path, model))


def test_integers_of_unknown_range_are_told() -> None:
    model = wrap(OwnTable(), [TensorSpec("ids", (1, 8), "int64")])
    assert any("only the values 0 and 1 are tried" in note for note in model.notes)


# State and mode


class Around(nn.Module):
    """An honest module with something around it."""

    def __init__(self, honest: Any) -> None:
        super().__init__()
        self.honest, self.dropout = honest, nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(1))


class Training(Around):
    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.honest(x))


class Counting(Around):
    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return self.honest(x) * (self.calls < 21)


class Gradients(Around):
    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return torch.zeros_like(x)
        return self.honest(x)


class Leaf(Around):
    """One that tells the mode by what no list of operators holds."""

    def __init__(self, honest: Any) -> None:
        super().__init__(honest)
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.honest(x) * float((x * self.weight).is_leaf)


@pytest.mark.parametrize(
    ("attack", "told"),
    [
        (Training, "it was saved in training mode"),
        pytest.param(
            *(Counting, "aten::add_ changes what the file stores: it keeps state"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *(Gradients, "aten::is_grad_enabled makes the answer depend on a mode"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *(Leaf, "lone.torchscript gives other outputs in enable_grad"), marks=pytest.mark.slow
        ),
    ],
)
def test_torchscript_with_state_or_modes_fails_by_name(
    attacked: CopyOf, lone: Model, attack: type[Around], told: str
) -> None:
    path = attacked("torchscript")
    about = {"slide_deploy.json": ""}
    with quiet():
        around = attack(torch.jit.load(path, _extra_files=about)).train(attack is Training)
        script = torch.jit.script(around)
        torch.jit.save(script, path, _extra_files=about)
    failed(verified(path, lone), told)


def control_flow(honest: str, result: str) -> Nodes:
    branches = {
        f"{name}_branch": helper.make_graph(
            [node("Identity", honest, f"{name}_result")],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_result", TensorProto.FLOAT, None)],
        )
        for name in ("then", "else")
    }
    return [
        node("ReduceMax", "features", "largest", keepdims=0),
        node("Cast", "largest", "decision", to=TensorProto.BOOL),
        node("If", "decision", result, **branches),
    ]


def random_numbers(honest: str, result: str) -> Nodes:
    return [
        node("RandomNormalLike", honest, "noise", scale=1e-12),
        node("Add", honest, "noise", result),
    ]


def dropout(honest: str, result: str) -> Nodes:
    return [node("Dropout", honest, "none", "yes", result)]


@pytest.mark.parametrize(
    ("attack", "told"),
    [
        (control_flow, "If may compute something else for other inputs"),
        (random_numbers, "RandomNormalLike draws random numbers"),
        (dropout, "Dropout is in training mode"),
    ],
)
def test_onnx_operators_that_few_runs_could_miss_fail_by_name(
    attacked: CopyOf, lone: Model, attack: Callable[[str, str], Nodes], told: str
) -> None:
    path = attacked("onnx")
    on_output(path, attack, none=np.float32(0), yes=np.array(True))
    failed(verified(path, lone), told)


# Interface


def test_a_weight_that_callers_can_replace_fails(attacked: CopyOf, lone: Model) -> None:
    path = attacked("onnx")
    model = onnx.load(path)
    weight = model.graph.initializer[0]
    model.graph.input.append(
        helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
    )
    onnx.save(model, path)
    failed(verified(path, lone), f"the weight {weight.name} is also an input")


def test_a_strange_file_in_a_folder_fails(attacked: CopyOf, lone: Model) -> None:
    path = attacked("openvino")
    (path / "plugins.xml.bak").write_text("x")
    failed(verified(path, lone), "plugins.xml.bak is no part of the model")


def test_a_core_ml_input_of_blue_green_red_pixels_fails(attacked: CopyOf, lone: Model) -> None:
    from coremltools.proto import Model_pb2

    path = attacked("coreml")
    (file,) = path.rglob("*.mlmodel")
    model = Model_pb2.Model.FromString(file.read_bytes())
    image = model.description.input[0].type.imageType
    image.width, image.height, image.colorSpace = 7, 6, image.BGR
    file.write_bytes(model.SerializeToString())
    failed(verified(path, lone), "features")


# Values that are not numbers, and large ones


def without_nan(source: str, result: str) -> Nodes:
    return [node("IsNaN", source, "bad"), node("Where", "bad", "nought", source, result)]


def clipped(source: str, result: str) -> Nodes:
    return [node("Clip", source, "low", "high", result)]


@pytest.mark.parametrize(
    ("attack", "told"),
    [
        (without_nan, "probe one NaN, output attended: numbers where the model gives NaN"),
        (clipped, "probe pixels"),
    ],
)
def test_an_input_that_is_cleaned_fails(
    attacked: CopyOf, lone: Model, attack: Callable[[str, str], Nodes], told: str
) -> None:
    path = attacked("onnx")
    constants = {"nought": 0, "low": -130, "high": 130}
    on_input(path, attack, **{name: np.float32(value) for name, value in constants.items()})
    failed(verified(path, lone), told)


def test_what_promises_nothing_of_nan_is_not_judged(artifact: CopyOf, lone: Model) -> None:
    check = verified(artifact("openvino"), lone)
    assert check.verdict is Verdict.PASS, check.problems
    assert [note.partition(":")[0] for note in check.notes] == ["NaN was not judged"]
