"""Core ML packages with 8-bit activations: sound ones have no problem, damage is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb

from slide_deploy.errors import ArtifactError, ConversionError, UsageError
from slide_deploy.exporters._quantize.coreml import quantize
from slide_deploy.parity.quantization import quantization_problem
from slide_deploy.protocols import Calibration, QuantizedTensor
from slide_deploy.types import Options
from slide_deploy.utils.quiet import quiet
from slide_deploy.validators import _mil, coreml
from slide_deploy.validators._mil.package import open_package
from slide_deploy.validators._mil.schema import parse_model
from slide_deploy.validators._quantized.coreml_activations import measure_ranges

RNG = np.random.default_rng(0)
OPTIONS = Options(precision="w8a8")


def runs(seed: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.standard_normal((1, 4, 8, 8)).astype(np.float32)} for _ in range(4)]


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


RUNS = runs(0)
KERNEL, SQUARE, MATRIX = normal(16, 4, 3, 3), 0.1 * normal(64, 64), 0.1 * normal(16, 64)


def write(path: Path, scale: float, system: object = ct.target.iOS17) -> Path:
    """A residual connection around a product, and a reshape between products, in float16; values
    between the first two products are `scale` times as large."""

    @mb.program(input_specs=[mb.TensorSpec((1, 4, 8, 8))], opset_version=system)
    def small(x: Any) -> Any:
        x = mb.conv(x=x, weight=np.float32(scale) * KERNEL, pad_type="same", name="conv")
        x = mb.reshape(x=x, shape=(16, 64), name="moved")
        y = mb.linear(x=x, weight=SQUARE, name="inner")
        x = mb.add(x=mb.gelu(x=mb.mul(x=y, y=np.float32(1 / scale))), y=np.float32(0.5))
        x = mb.add(x=x, y=mb.linear(x=x, weight=SQUARE.T.copy(), name="outer"), name="residual")
        return mb.softmax(x=mb.linear(x=x, weight=MATRIX, name="last"), axis=-1, name="y")

    with quiet():
        ct.convert(
            small,
            convert_to="mlprogram",
            compute_precision=ct.precision.FLOAT16,
            minimum_deployment_target=system,
            inputs=[ct.TensorType("x", (1, 4, 8, 8), dtype=np.float32)],
            outputs=[ct.TensorType("y", dtype=np.float32)],
            skip_model_load=True,
        ).save(str(path))
    return path


def quantized(program: Path, path: Path, options: Options = OPTIONS) -> Path:
    with quiet():
        ranges = partial(measure_ranges, program, RUNS)
        quantize(program, path, Calibration(RUNS, {"model": "small"}, ranges=ranges), options)
    return path


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("program") / "small.mlpackage", 1.0)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory, program: Path) -> Path:
    return quantized(program, tmp_path_factory.mktemp("artifact") / "small.mlpackage")


def outputs(path: Path) -> list[np.ndarray]:
    session = coreml.open_session(path)
    return [session.run(run)["y"] for run in RUNS]


def tensors(path: Path, program: Path, restored: Path, seed: int = 0) -> list[QuantizedTensor]:
    assert coreml.RUNTIME.take_apart is not None
    return list(coreml.RUNTIME.take_apart(path, program, restored, runs(seed)))


def problems(path: Path, program: Path, folder: Path, seed: int = 0) -> list[str]:
    found = tensors(path, program, folder / "restored.mlpackage", seed)
    return [problem for tensor in found if (problem := quantization_problem(tensor))]


def test_a_sound_package_has_no_problem(program: Path, artifact: Path, tmp_path: Path) -> None:
    restored = tmp_path / "restored.mlpackage"
    found = tensors(artifact, program, restored)
    assert [quantization_problem(tensor) for tensor in found] == [""] * len(found)
    # What a product reads and writes: the reshaped value is that of the convolution.
    activations = [tensor.name for tensor in found if tensor.weights is None]
    assert [name.removesuffix("_cast_fp16") for name in activations] == [
        *("x_to_fp16", "conv", "inner", "add_0", "outer", "residual", "last")
    ]
    assert all(map(np.array_equal, outputs(restored), outputs(program)))
    assert not any(map(np.array_equal, outputs(artifact), outputs(program)))
    assert np.abs(np.subtract(outputs(artifact), outputs(program))).max() < 0.1


def test_the_residual_path_reads_what_is_not_quantized(artifact: Path) -> None:
    program = _mil.read_package(artifact)
    makers = {op.name: op.type for op in program.operations}
    residual = next(op for op in program.operations if op.name.startswith("residual"))
    assert [makers[str(residual.inputs[key][0])] for key in ("x", "y")] == ["add", "dequantize"]


def test_the_package_says_how_it_computes(artifact: Path) -> None:
    session = coreml.open_session(artifact)
    assert (session.weight_type, session.compute_type) == ("int8", "int8")
    assert session.precision == "float16, weights stored as int8, products read and write int8"
    assert [text.split()[0] for text in session.other_precision] == [
        *("mil::gelu", "mil::add", "mil::add", "mil::softmax")
    ]
    assert session.metadata["model"] == "small"


def operations_of(model: Any) -> Any:
    (function,) = model.mlProgram.functions.values()
    return function.block_specializations[function.opset].operations


def broken(artifact: Path, folder: Path, edit: Callable[[Any], None]) -> Path:
    """A copy whose operations `edit` changes."""
    shutil.copytree(artifact, folder)
    file = open_package(folder).model
    model = parse_model(file.read_bytes(), "model")
    edit(operations_of(model))
    file.write_bytes(model.SerializeToString())
    return folder


def scales(operations: Any, number: int) -> list[Any]:
    """The constants that hold the scale of the pair of this number."""
    quantizer = [op for op in operations if op.type == "quantize"][number]
    names = {quantizer.inputs["scale"].arguments[0].name}
    for op in operations:
        if op.type == "dequantize" and op.inputs["input"].arguments[0].name in names_of(quantizer):
            names.add(op.inputs["scale"].arguments[0].name)
    return [op for op in operations if op.type == "const" and op.outputs[0].name in names]


def names_of(op: Any) -> list[str]:
    return [value.name for value in op.outputs]


def half(op: Any, value: float | None = None) -> float:
    """The float16 number of a constant; with `value`, after setting it."""
    number = op.attributes["val"].immediateValue.tensor.bytes
    if value is not None:
        number.values = np.float16(value).tobytes()
    return float(np.frombuffer(number.values, np.float16)[0])


def scaled(factor: float) -> Callable[[Any], None]:
    def edit(operations: Any) -> None:
        for op in scales(operations, 2):
            half(op, factor * half(op))

    return edit


def with_zero_point(operations: Any) -> None:
    """The third pair gets a zero point of one."""
    quantizer = [op for op in operations if op.type == "quantize"][2]
    for op in operations:
        given = op.inputs["input"].arguments if op.type == "dequantize" else ()
        if op is quantizer or (given and given[0].name in names_of(quantizer)):
            value = op.inputs["zero_point"].arguments.add().value
            value.type.tensorType.dataType = 21  # int8
            value.immediateValue.tensor.bytes.values = b"\x01"


@pytest.mark.parametrize("edit", [scaled(1.05), scaled(0.95), scaled(0.8), with_zero_point])
def test_a_damaged_pair_is_named(
    program: Path, artifact: Path, tmp_path: Path, edit: Callable[[Any], None]
) -> None:
    (found,) = problems(broken(artifact, tmp_path / "b.mlpackage", edit), program, tmp_path)
    assert "off that of the calibration set" in found


def test_another_calibration_set_is_noticed(program: Path, artifact: Path, tmp_path: Path) -> None:
    assert any("steps off" in found for found in problems(artifact, program, tmp_path, seed=1))


def test_a_pair_of_two_scales_is_refused(program: Path, artifact: Path, tmp_path: Path) -> None:
    def edit(operations: Any) -> None:
        first, second = ([op for op in operations if op.type == kind] for kind in KINDS)
        other = next(op for op in second if op.inputs["scale"] != first[1].inputs["scale"]).inputs[
            "scale"
        ]
        first[1].inputs["scale"].CopyFrom(other)

    KINDS = ("quantize", "dequantize")
    with pytest.raises(ArtifactError, match="another scale or zero point"):
        problems(broken(artifact, tmp_path / "b.mlpackage", edit), program, tmp_path)


def test_a_value_that_the_float_package_lacks_is_refused(
    program: Path, artifact: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.mlpackage"
    shutil.copytree(program, other)
    model = open_package(other).model
    model.write_bytes(model.read_bytes().replace(b"residual", b"residuel"))
    with pytest.raises(ArtifactError, match="has no value residual"):
        problems(artifact, other, tmp_path)


def test_weights_too_small_for_a_scale_stay_float16(tmp_path: Path) -> None:
    """coremltools gives a channel whose scale float16 cannot hold a scale of zero."""
    program = write(tmp_path / "program.mlpackage", 1e-6)
    path = quantized(program, tmp_path / "artifact.mlpackage")
    found = tensors(path, program, tmp_path / "restored.mlpackage")
    sizes = [tensor.weights.size for tensor in found if tensor.weights is not None]
    assert sizes == [SQUARE.size, SQUARE.size, MATRIX.size]  # not KERNEL


@pytest.mark.parametrize("scale", [300.0, 1e-3, 1e-6])
def test_unusual_scales(tmp_path: Path, scale: float) -> None:
    """float16's scales of ranges above 32752 are finite; what they cannot hold stays float16."""
    program = write(tmp_path / "program.mlpackage", scale)
    path = quantized(program, tmp_path / "artifact.mlpackage")
    assert problems(path, program, tmp_path) == []
    assert np.abs(np.subtract(outputs(path), outputs(program))).max() < 0.1


def test_a_value_that_overflows_is_named(tmp_path: Path) -> None:
    program = write(tmp_path / "program.mlpackage", 1e4)
    with pytest.raises(ConversionError, match=r"conv\S* overflows float16 on the calibration set"):
        quantized(program, tmp_path / "artifact.mlpackage")


def test_an_older_program_is_raised_to_the_first_system(tmp_path: Path) -> None:
    program = write(tmp_path / "program.mlpackage", 1.0, ct.target.iOS16)
    path = quantized(program, tmp_path / "artifact.mlpackage")
    assert _mil.read_package(path).opset == "CoreML7"
    assert problems(path, program, tmp_path) == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"deployment_target": "iOS16"}, "8-bit activations from iOS17 on; got iOS16"),
        ({"deployment_target": "macOS13"}, "8-bit activations from iOS17 on; got macOS13"),
        ({"compression": "palette"}, "not with the values of a palette"),
    ],
)
def test_options_that_it_lacks_are_refused(options: dict[str, str], named: str) -> None:
    wanted = Options(precision="w8a8").with_target_options(options)
    with pytest.raises(UsageError, match=named):
        quantize(Path("a"), Path("b"), Calibration([], {}), wanted)
