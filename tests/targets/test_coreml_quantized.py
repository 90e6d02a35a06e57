"""Compressed Core ML packages are taken apart: sound ones have no problem, damage is named."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb

from slide_deploy.errors import ArtifactError, MissingLibrary, UsageError
from slide_deploy.exporters._quantize.coreml import COMPRESSIONS, quantize
from slide_deploy.parity.quantization import quantization_problem
from slide_deploy.protocols import Calibration
from slide_deploy.types import Options
from slide_deploy.utils.quiet import quiet
from slide_deploy.validators import coreml
from slide_deploy.validators._mil import blob
from slide_deploy.validators._mil.package import open_package
from slide_deploy.validators._mil.schema import parse_model
from slide_deploy.validators._quantized.coreml import COMPRESSED, take_apart

RNG = np.random.default_rng(0)
RUNS = [{"x": RNG.standard_normal((1, 4, 8, 8)).astype(np.float32)} for _ in range(4)]
ABOUT = {"model": "small", "calibration": "real"}
SYSTEMS = {"iOS16": ct.target.iOS16, "iOS18": ct.target.iOS18}


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


MASK = np.where(normal(1, 64, 8, 8) > 2, -1e4, 0.1 * normal(1, 64, 8, 8)).astype(np.float32)
KERNEL, SQUARE, MATRIX = normal(64, 4, 3, 3), 0.1 * normal(64, 64), normal(80, 64)
CASES = [(kind, system) for kind in COMPRESSIONS for system in SYSTEMS]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A convolution, an addition, GELU and a product, in float16."""
    made: dict[str, Path] = {}

    def write(system: str) -> Path:
        if system in made:
            return made[system]

        @mb.program(input_specs=[mb.TensorSpec((1, 4, 8, 8))], opset_version=SYSTEMS[system])
        def small(x: Any) -> Any:
            x = mb.conv(x=x, weight=KERNEL, pad_type="same", name="conv")
            x = mb.gelu(x=mb.add(x=x, y=np.float32(0.5), name="shifted"), mode="EXACT")
            x = mb.add(x=x, y=MASK)
            x = mb.reshape(x=mb.reduce_mean(x=x, axes=[2, 3]), shape=(1, 64))
            # Equal weights, which compression merges.
            x = mb.linear(x=mb.linear(x=x, weight=SQUARE), weight=SQUARE.copy())
            return mb.linear(x=x, weight=MATRIX, name="y")

        made[system] = tmp_path_factory.mktemp("program") / "small.mlpackage"
        with quiet():
            ct.convert(
                small,
                convert_to="mlprogram",
                compute_precision=ct.precision.FLOAT16,
                minimum_deployment_target=SYSTEMS[system],
                inputs=[ct.TensorType("x", (1, 4, 8, 8), dtype=np.float32)],
                outputs=[ct.TensorType("y", dtype=np.float32)],
                skip_model_load=True,
            ).save(str(made[system]))
        return made[system]

    return write


@pytest.fixture(scope="module")
def compressed(
    program: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Path]:
    made: dict[tuple[str, str], Path] = {}

    def run(kind: str, system: str) -> Path:
        if (kind, system) not in made:
            path = made[kind, system] = tmp_path_factory.mktemp(kind) / "small.mlpackage"
            options = Options(precision="w8", target_options={"compression": kind})
            with quiet():
                quantize(program(system), path, Calibration(RUNS, ABOUT), options)
        return made[kind, system]

    return run


@pytest.fixture(autouse=True)
def every_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also small weights are compressed."""
    fewest = dict.fromkeys(COMPRESSIONS, 1024)
    monkeypatch.setattr("slide_deploy.exporters._quantize.coreml.FEWEST", fewest)


def outputs(path: Path) -> list[np.ndarray]:
    session = coreml.open_session(path)
    return [session.run(run)["y"] for run in RUNS]


def problems(path: Path, program: Path, restored: Path) -> list[str]:
    tensors = take_apart(path, program, restored, RUNS)
    return [problem for tensor in tensors if (problem := quantization_problem(tensor))]


@pytest.mark.parametrize(("kind", "system"), CASES)
def test_a_sound_package_has_no_problem(
    program: Any, compressed: Any, tmp_path: Path, kind: str, system: str
) -> None:
    path, restored = compressed(kind, system), tmp_path / "restored.mlpackage"
    tensors = list(take_apart(path, program(system), restored, RUNS))
    sizes = [np.size(t.integers) for t in tensors]  # not that of the mask, which is no product's
    assert sizes == [KERNEL.size, SQUARE.size, MATRIX.size]
    assert [quantization_problem(t) for t in tensors] == [""] * 3
    assert all(map(np.array_equal, outputs(restored), outputs(program(system))))
    assert not any(map(np.array_equal, outputs(path), outputs(program(system))))


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_the_package_says_how_it_was_compressed(compressed: Any, kind: str) -> None:
    session = coreml.open_session(compressed(kind, "iOS16"))
    assert (session.weight_type, session.compute_type) == ("int8", "float16")
    assert ABOUT.items() <= session.metadata.items()


def with_numbers(path: Path, folder: Path, attribute: str, edit: Any) -> Path:
    """A copy in which `edit` changed numbers of the last compressed weight."""
    shutil.copytree(path, folder)
    package = open_package(folder)
    model = parse_model(package.model.read_bytes(), "model")
    (function,) = model.mlProgram.functions.values()
    operations = function.block_specializations[function.opset].operations
    value = [op for op in operations if op.type in COMPRESSED][-1].attributes[attribute]
    weights = package.model.parent / "weights/weight.bin"
    record = blob.open_blob(weights).records[value.blobFileValue.offset]
    content = bytearray(weights.read_bytes())
    kinds = {"scale": np.float16, "lut": np.float16, "indices": np.uint8}
    numbers = np.frombuffer(
        content, kinds.get(attribute, np.int8), offset=record.offset, count=80
    ).copy()
    content[record.offset : record.offset + numbers.nbytes] = edit(numbers).tobytes()
    weights.write_bytes(content)
    return folder


def one_more(value: np.ndarray) -> np.ndarray:
    changed = value.copy()
    changed[3] += 1 if changed[3] < 100 else -1
    return changed


def one_larger(value: np.ndarray) -> np.ndarray:
    changed = value.copy()
    changed[np.abs(changed).argmax()] *= np.float16(1.05)
    return changed


@pytest.mark.parametrize(
    ("kind", "attribute", "edit", "named"),
    [
        ("linear", "quantized_data", one_more, "not the nearest integers"),
        ("linear", "scale", lambda v: v * np.float16(1.05), "as its weights need"),
        ("linear", "scale", lambda v: v / np.float16(1.05), "not the nearest integers"),
        ("linear", "scale", one_larger, "as its weights need"),
        ("palette", "indices", one_more, "not the nearest values"),
        ("palette", "lut", one_larger, "palette value|nearest values"),
        ("palette", "lut", lambda v: v[::-1], "not the nearest values"),
    ],
)
def test_a_damaged_number_is_named(
    program: Any, compressed: Any, tmp_path: Path, kind: str, attribute: str, edit: Any, named: str
) -> None:
    broken = with_numbers(compressed(kind, "iOS16"), tmp_path / "b.mlpackage", attribute, edit)
    (found,) = problems(broken, program("iOS16"), tmp_path / "restored.mlpackage")
    assert any(part in found for part in named.split("|")), found


def test_weights_of_another_model_are_refused(
    program: Any, compressed: Any, tmp_path: Path
) -> None:
    other = program("iOS16").parent / "other.mlpackage"
    shutil.copytree(program("iOS18"), other)
    model = open_package(other).model
    model.write_bytes(model.read_bytes().replace(b"shifted", b"shafted"))
    with pytest.raises(ArtifactError, match="in its place"):
        problems(compressed("linear", "iOS16"), other, tmp_path / "restored.mlpackage")


def test_palettes_need_a_library_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    options = Options(precision="w8", target_options={"compression": "palette"})
    with pytest.raises(MissingLibrary, match=r"scikit-learn.*quantize"):
        quantize(Path("a"), Path("b"), Calibration([], {}), options)


def test_an_unknown_compression_is_refused() -> None:
    options = Options(precision="w8", target_options={"compression": "zip"})
    with pytest.raises(UsageError, match="no compression 'zip'"):
        quantize(Path("a"), Path("b"), Calibration([], {}), options)
