"""Quantized OpenVINO models are taken apart: sound ones have no problem, damage is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

from slide_deploy.errors import ArtifactError
from slide_deploy.exporters._quantize.openvino import quantize
from slide_deploy.parity.quantization import quantization_problem
from slide_deploy.protocols import Calibration
from slide_deploy.types import Options
from slide_deploy.validators._quantized.openvino import quantized_types, take_apart

RNG = np.random.default_rng(0)
RUNS = [{"x": RNG.standard_normal((1, 4, 8, 8)).astype(np.float32)} for _ in range(4)]
ABOUT = {"model": "small", "calibration": "real"}


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("program"), normal(8, 4, 3, 3))


def written(folder: Path, weights: np.ndarray) -> Path:
    """A convolution with these weights, an addition, GELU and a product."""
    x = ops.parameter([1, 4, 8, 8], np.float32, name="x")
    pads = ([1, 1], [1, 1], [1, 1])
    conv = ops.convolution(x, ops.constant(weights), [1, 1], *pads[:2], [1, 1])
    conv.set_friendly_name("conv")
    shifted = ops.add(conv, ops.constant(normal(1, 8, 1, 1)), name="shifted")
    active = ops.gelu(shifted, "erf", name="active")
    product = ops.matmul(active, ops.constant(normal(5, 8)), False, True, name="product")
    model = openvino.Model([product], [x], "small")
    model.inputs[0].get_tensor().set_names({"x"})
    model.outputs[0].get_tensor().set_names({"y"})
    openvino.save_model(model, folder / "small.xml", compress_to_fp16=False)
    return folder


@pytest.fixture(scope="module")
def quantized(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def run(precision: str) -> Path:
        if precision not in made:
            made[precision] = tmp_path_factory.mktemp(precision) / "small"
            options = Options(precision=precision)
            quantize(program, made[precision], Calibration(RUNS, ABOUT), options)
        return made[precision]

    return run


def read(folder: Path) -> Any:
    return openvino.Core().read_model(next(folder.glob("*.xml")))


def outputs(folder: Path) -> list[np.ndarray]:
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(read(folder), "CPU", hint)
    return [compiled(run)[0] for run in RUNS]


def problems(artifact: Path, program: Path, restored: Path) -> list[str]:
    tensors = take_apart(artifact, program, restored, RUNS)
    return [problem for tensor in tensors if (problem := quantization_problem(tensor))]


@pytest.mark.parametrize(("precision", "ranges"), [("w8a8", 2), ("w8", 0)])
def test_a_sound_model_has_no_problem(
    program: Path, quantized: Any, tmp_path: Path, precision: str, ranges: int
) -> None:
    artifact = quantized(precision)
    tensors = list(take_apart(artifact, program, tmp_path / "restored", RUNS))
    assert sum(t.weights is not None for t in tensors) == 2
    assert sum(t.observed is not None for t in tensors) == ranges
    assert [quantization_problem(t) for t in tensors] == [""] * len(tensors)
    pairs = zip(outputs(tmp_path / "restored"), outputs(program), strict=True)
    assert all(np.allclose(a, b, atol=1e-5) for a, b in pairs)
    lossy = zip(outputs(artifact), outputs(program), strict=True)
    assert not any(np.allclose(a, b, atol=1e-3) for a, b in lossy)


@pytest.mark.parametrize("size", [1e-2, 1e-3, 1e-6, 1e-9, 0.0], ids=str)
@pytest.mark.parametrize("alone", [False, True], ids=["all channels", "one channel"])
def test_weights_of_any_size_are_the_nearest_integers(
    tmp_path: Path, size: float, alone: bool
) -> None:
    weights = normal(8, 4, 3, 3)
    weights[slice(1) if alone else slice(None)] *= np.float32(size)
    folder = tmp_path / "program"
    folder.mkdir()
    artifact = tmp_path / "small"
    quantize(written(folder, weights), artifact, Calibration(RUNS, ABOUT), Options("w8"))
    assert problems(artifact, folder, tmp_path / "restored") == []
    assert quantized_types(read(artifact)) == ("int8", "float32")
    found = [value for run in outputs(artifact) for value in run.ravel()]
    assert np.isfinite(found).all()


def in_groups(x: Any, size: float) -> Any:
    weights = ops.constant(size * normal(2, 4, 2, 3, 3))
    return ops.group_convolution(x, weights, [1, 1], [1, 1], [1, 1], [1, 1])


def by_a_matrix(x: Any, size: float) -> Any:
    return ops.matmul(x, ops.constant(size * normal(5, 8)), False, True)


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-9], ids=str)
@pytest.mark.parametrize("product", [in_groups, by_a_matrix])
def test_small_weights_of_other_products_are_the_nearest_integers(
    tmp_path: Path, product: Callable[[Any, float], Any], size: float
) -> None:
    x = ops.parameter([1, 4, 8, 8], np.float32, name="x")
    model = openvino.Model([product(x, size)], [x], "small")
    model.inputs[0].get_tensor().set_names({"x"})
    model.outputs[0].get_tensor().set_names({"y"})
    (folder := tmp_path / "float").mkdir()
    openvino.save_model(model, folder / "small.xml", compress_to_fp16=False)
    artifact = tmp_path / "small"
    quantize(folder, artifact, Calibration(RUNS, ABOUT), Options("w8"))
    assert problems(artifact, folder, tmp_path / "restored") == []
    for made, wanted in zip(outputs(artifact), outputs(folder), strict=True):
        assert 0 < np.abs(made - wanted).max() < 0.02 * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("precision", "types"), [("w8a8", ("int8", "int8")), ("w8", ("int8", "float32"))]
)
def test_the_model_says_how_it_was_quantized(
    quantized: Any, precision: str, types: tuple[str, str]
) -> None:
    model = read(quantized(precision))
    assert quantized_types(model) == types
    about = model.get_rt_info()["slide_deploy"]
    assert {key: value.astype(str) for key, value in about.items()} == ABOUT


def with_constant(
    artifact: Path, folder: Path, kind: str, places: tuple[int, ...], edit: Any
) -> Path:
    """The model with constants that the first operation of a kind reads replaced by what `edit`
    makes of them; integers are those behind the Convert of a Multiply."""
    model = read(artifact)
    node = next(
        n
        for n in model.get_ops()
        if n.get_type_name() == kind
        and (kind != "Multiply" or n.input_value(0).get_node().get_type_name() == "Convert")
    )
    for place in places:
        target = node.input_value(0).get_node() if place < 0 else node
        port = target.input(max(place, 0))
        old = port.get_source_output().get_node()
        value = np.asarray(edit(np.array(old.data)), old.data.dtype)
        port.replace_source_output(ops.constant(value).output(0))
    folder.mkdir()
    openvino.save_model(model, folder / "small.xml", compress_to_fp16=False)
    return folder


def one_more(value: np.ndarray) -> np.ndarray:
    changed = value.copy()
    changed.flat[3] += 1 if changed.flat[3] < 100 else -1
    return changed


@pytest.mark.parametrize(
    ("kind", "places", "edit", "named"),
    [
        ("Multiply", (-1,), one_more, "weights that are not the nearest integers"),
        ("Multiply", (1,), lambda v: 1.05 * v, "as its weights need"),
        ("Multiply", (1,), lambda v: v / 1.05, "weights that are not the nearest integers"),
        ("FakeQuantize", (1, 2, 3, 4), lambda v: 0.9 * v, "steps off"),
        ("FakeQuantize", (1, 2, 3, 4), lambda v: v + 0.05, "steps off"),
    ],
    ids=["integer", "scale", "small scale", "clipped", "shifted"],
)
def test_a_damaged_number_is_named(
    program: Path, quantized: Any, tmp_path: Path, kind: str, places: Any, edit: Any, named: str
) -> None:
    broken = with_constant(quantized("w8a8"), tmp_path / "broken", kind, places, edit)
    found = problems(broken, program, tmp_path / "restored")
    assert any(named in problem for problem in found), found


def test_another_range_behind_than_before_is_refused(
    program: Path, quantized: Any, tmp_path: Path
) -> None:
    broken = with_constant(
        quantized("w8a8"), tmp_path / "broken", "FakeQuantize", (4,), lambda v: 2 * v
    )
    with pytest.raises(ArtifactError, match="levels of one range"):
        problems(broken, program, tmp_path / "restored")


def test_a_changed_float_operator_stays_in_the_restored_model(
    program: Path, quantized: Any, tmp_path: Path
) -> None:
    broken = with_constant(quantized("w8a8"), tmp_path / "broken", "Add", (1,), lambda v: 1.01 * v)
    assert problems(broken, program, tmp_path / "restored") == []
    made, meant = outputs(tmp_path / "restored"), outputs(program)
    assert not np.allclose(made[0], meant[0], atol=1e-4)


def test_the_range_of_another_value_is_named(program: Path, quantized: Any, tmp_path: Path) -> None:
    """Also where it is the wider one: equal ranges do not vouch for each other."""
    artifact = quantized("w8a8")
    model = read(artifact)
    nodes = [n for n in model.get_ops() if n.get_type_name() == "FakeQuantize"]
    ends = [[np.array(n.input_value(i).get_node().data) for i in (1, 2)] for n in nodes]
    widest = (min(low for low, _ in ends), max(high for _, high in ends))
    for node in nodes:
        for place, end in zip(range(1, 5), (*widest, *widest), strict=True):
            node.input(place).replace_source_output(ops.constant(end).output(0))
    broken = tmp_path / "broken"
    broken.mkdir()
    openvino.save_model(model, broken / "small.xml", compress_to_fp16=False)
    assert any("steps off" in p for p in problems(broken, program, tmp_path / "restored"))
