"""Packages that are read, and damaged packages that are refused."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import get_new_symbol

from slide_deploy.errors import ArtifactError
from slide_deploy.validators._mil import evaluate, histogram, read_package

WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
X = np.arange(10, dtype=np.float32).reshape(2, 5)
# Of ten elements at least: smaller constants are not kept in the weight file.
FIRST, SECOND = np.full((2, 5), 3, np.float32), np.full((3, 5), 5, np.float32)


def build(x: Any) -> Any:
    return mb.linear(x=mb.relu(x=mb.add(x=x, y=FIRST)), weight=SECOND)


@pytest.fixture
def package(write: Callable[..., Path]) -> Path:
    return write(build, [X], 6)


def main(model: Any) -> Any:
    return model.mlProgram.functions["main"]


def operation(model: Any, kind: str) -> Any:
    block = main(model).block_specializations[main(model).opset]
    return next(o for o in block.operations if o.type == kind)


def refused(package: Path, match: str) -> None:
    with pytest.raises(ArtifactError, match=match):
        evaluate(read_package(package), {"x": X})


def test_a_program_is_plain_data(package: Path, edit: Callable[..., Path]) -> None:
    def describe(model: Any) -> None:
        model.description.metadata.shortDescription = "a test"
        model.description.metadata.userDefined["family"] = "swin"

    program = read_package(edit(package, describe))
    assert (program.opset, program.spec_version) == ("CoreML6", 7)
    assert (program.description, program.metadata["family"]) == ("a test", "swin")
    assert [(f.name, f.dtype, f.shape) for f in program.inputs] == [("x", "fp32", (2, 5))]
    assert [(f.dtype, f.shape) for f in program.outputs] == [("fp32", (2, 3))]
    assert histogram(program) == {"add": 1, "relu": 1, "linear": 1}
    add = next(o for o in program.operations if o.type == "add")
    assert add.inputs["x"] == ("x",)
    assert (add.outputs[0].type.dtype, add.outputs[0].type.shape) == ("fp32", (2, 5))


def test_every_value_is_observed_and_nothing_given_is_changed(package: Path) -> None:
    program, seen = read_package(package), {}
    given = X.copy()
    evaluate(program, {"x": given}, lambda name, value: seen.update({name: value.copy()}))
    np.testing.assert_array_equal(given, X)
    assert list(seen) == [o.name for o in program.operations if o.type != "const"]
    np.testing.assert_array_equal(next(iter(seen.values())), X + 3)


def weight_file(package: Path, change: Callable[[bytearray], Any]) -> Path:
    data = bytearray((package / WEIGHTS).read_bytes())
    change(data)
    (package / WEIGHTS).write_bytes(data)
    return package


def put(form: str, at: int, value: int) -> Callable[[bytearray], None]:
    return lambda data: struct.pack_into(form, data, at, value)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda data: data.__delitem__(slice(30, None)), "too short"),
        (lambda data: data.__delitem__(slice(-1, None)), "truncated"),
        (lambda data: data.__delitem__(slice(80, None)), "truncated"),
        (lambda data: data.extend(bytes(64)), "after its last record"),
        (put("<I", 0, 3), "truncated"),
        (put("<I", 0, 1), "after its last record"),
        (put("<I", 4, 1), "format version 1"),
        (put("<B", 64, 0xEE), "no sentinel"),
        (put("<I", 68, 1), "element type 1, declared fp32"),
        (put("<I", 68, 99), "element type 99, declared fp32"),
        (put("<Q", 72, 28), "28 bytes, which does not match fp32"),
        (put("<Q", 72, 1 << 62), "truncated"),
        (put("<Q", 80, 0), "points to 0"),
        (put("<Q", 80, 1 << 63), "points to"),
        (put("<Q", 88, 9), "9 padding bits"),
    ],
)
def test_a_damaged_weight_file_is_refused(
    package: Path, change: Callable[[bytearray], Any], match: str
) -> None:
    refused(weight_file(package, change), match)


def manifest(package: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    path = package / "Manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return package


def move_item(kind: str, to: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        entries = content["itemInfoEntries"].values()
        next(e for e in entries if e["path"].endswith(kind))["path"] = to

    return change


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (move_item("model.mlmodel", "../../model.mlmodel"), "leaves the package"),
        (move_item("model.mlmodel", "/etc/passwd"), "leaves the package"),
        (move_item("model.mlmodel", "com.apple.CoreML/other"), "listed but missing"),
        (move_item("weights", "com.apple.CoreML/model.mlmodel"), "not listed in Manifest.json"),
        (lambda content: content.pop("rootModelIdentifier"), "names no root model"),
        (lambda content: content.update(rootModelIdentifier="x"), "names no root model"),
        (lambda content: content.update(itemInfoEntries=[]), "names no root model"),
        (lambda content: content.update(fileFormatVersion="2.0.0"), "file format version 1"),
    ],
)
def test_a_manifest_is_followed_only_inside_the_package(
    package: Path, change: Callable[[dict[str, Any]], Any], match: str
) -> None:
    refused(manifest(package, change), match)


def test_a_link_out_of_the_package_is_refused(package: Path, tmp_path: Path) -> None:
    outside = tmp_path / "weight.bin"
    (package / WEIGHTS).rename(outside)
    (package / WEIGHTS).symlink_to(outside)
    refused(package, "leaves the package")


def test_what_is_no_package_is_refused(package: Path, tmp_path: Path) -> None:
    refused(tmp_path, "not a .mlpackage")
    (package / "Data/com.apple.CoreML/model.mlmodel").write_bytes(b"\xff\xff\xff")
    refused(package, "not a Core ML model")
    (package / "Manifest.json").write_text("{")
    refused(package, "not JSON")


def set_dimension(kind: str, size: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        tensor = operation(model, kind).outputs[0].type.tensorType
        tensor.dimensions[0].constant.size = size

    return change


def set_type(kind: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        operation(model, kind).outputs[0].type.tensorType.dataType = 10

    return change


def set_weight(field: str, value: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        setattr(operation(model, "const").attributes["val"].blobFileValue, field, value)

    return change


def set_argument(name: str, value: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        operation(model, "relu").inputs[name].arguments.add().name = value

    return change


def set_output(name: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        operation(model, "relu").outputs[0].name = name

    return change


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (set_dimension("relu", 3), r"relu relu_0: relu_0 is declared \(3, 5\) but is \(2, 5\)"),
        (set_dimension("const", 3), r"declared \(3, 5\) but is \(2, 5\)"),
        (set_type("relu"), "relu_0 is declared fp16 but is float32"),
        (set_weight("offset", 65), "no record at offset 65"),
        (set_weight("fileName", "@model_path/weights/other.bin"), "is missing"),
        (set_weight("fileName", "@model_path/../../../secret"), "leaves the package"),
        (set_weight("fileName", "/etc/passwd"), "not under @model_path"),
        (
            lambda model: setattr(operation(model, "relu"), "type", "rely"),
            "rely relu_0: the operation 'rely' is not supported",
        ),
        (set_argument("alpha", "x"), "relu relu_0: argument 'alpha' is not supported"),
        (set_argument("x", "x"), "argument 'x' is a list of 2 values"),
        (lambda model: operation(model, "relu").inputs.clear(), "argument 'x' is missing"),
        (lambda model: operation(model, "relu").blocks.add(), "nested blocks"),
        (lambda model: operation(model, "relu").outputs.add().CopyFrom(
            main(model).inputs[0]), "'x' is defined twice"),
        (set_output("elsewhere"), "which nothing before it defines"),
        (lambda model: setattr(main(model), "opset", "CoreML7"), "no block for the opset"),
        (lambda model: main(model).inputs.add(name="y").type.listType.SetInParent(), "listType"),
        (lambda model: model.description.input.add(name="z"), "inputs described"),
        (
            lambda model: model.description.input[0].type.multiArrayType.shape.__setitem__(0, 7),
            "described as",
        ),
        (
            lambda model: setattr(
                model.description.input[0].type.multiArrayType, "dataType", 65552
            ),
            "described as fp16, in the program fp32",
        ),
        (lambda model: model.neuralNetwork.SetInParent(), "neuralNetwork"),
        (lambda model: model.mlProgram.functions["other"].SetInParent(), "functions described"),
    ],
)  # fmt: skip
def test_a_program_that_contradicts_itself_is_refused(
    package: Path, edit: Callable[..., Path], change: Callable[[Any], None], match: str
) -> None:
    refused(edit(package, change), match)


@pytest.mark.parametrize(
    ("feeds", "match"),
    [
        ({}, "but the program has"),
        ({"x": X, "y": X}, "but the program has"),
        ({"x": X.astype(np.float64)}, "is float64, not fp32"),
        ({"x": X[:1]}, r"shape \(1, 5\) is not accepted"),
    ],
)
def test_inputs_must_be_the_declared_ones(
    package: Path, feeds: dict[str, np.ndarray], match: str
) -> None:
    with pytest.raises(ArtifactError, match=match):
        evaluate(read_package(package), feeds)


@dataclass(frozen=True)
class Flexible:
    """Stands for an input whose first dimension is unknown to the program."""

    shape: tuple[Any, ...]
    dtype: str = "float32"


@pytest.mark.parametrize(
    ("shape", "good", "bad"),
    [
        (ct.Shape((ct.RangeDim(2, 4, 3), 4)), [2, 3, 4], [1, 5]),
        (ct.EnumeratedShapes([(2, 4), (5, 4)], (2, 4)), [2, 5], [3, 4]),
    ],
    ids=["range", "enumerated"],
)
def test_flexible_shapes_are_respected(
    write: Callable[..., Path], shape: Any, good: list[int], bad: list[int]
) -> None:
    unknown = Flexible((get_new_symbol(), 4))
    described = [ct.TensorType(name="x", shape=shape)]
    program = read_package(write(lambda x: mb.relu(x=x), [unknown], 6, described))
    for rows in good:
        x = np.ones((rows, 4), np.float32)
        np.testing.assert_array_equal(evaluate(program, {"x": x})["relu_0"], x)
    for rows in bad:
        with pytest.raises(ArtifactError, match="is not accepted"):
            evaluate(program, {"x": np.ones((rows, 4), np.float32)})


def test_neither_torch_nor_coremltools_is_imported(package: Path) -> None:
    script = (
        "import sys, numpy, pathlib\n"
        "from slide_deploy.validators import _mil\n"
        "program = _mil.read_package(pathlib.Path(sys.argv[1]))\n"
        "x = numpy.ones((2, 5), numpy.float32)\n"
        "assert next(iter(_mil.evaluate(program, {'x': x}).values())).shape == (2, 3)\n"
        "print([name for name in ('torch', 'coremltools') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(package)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
