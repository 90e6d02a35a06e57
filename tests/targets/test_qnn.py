"""Context binaries for Hexagon: run on the simulator, and broken ones are noticed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import slide_deploy
from slide_deploy import hexagon, registry
from slide_deploy.artifacts.options import options_by_target
from slide_deploy.errors import ConversionError, UsageError
from slide_deploy.exporters._quantize.qnn import parse_socs
from slide_deploy.hexagon import SOCS, compile_for
from slide_deploy.types import Fidelity, Options, Verdict
from slide_deploy.utils import machine as machines
from slide_deploy.validators.qnn import _differs

MISSING = registry.missing_packages(registry.runtime("qnn").packages)
simulated = pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} is not installed")

DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "slide_swin_digits.pth"
FOLDER = "slide_swin_digits_qnn_model"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory):
    """The digits model for two SoCs: its report, folder, model and calibration set."""
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("qnn")
    model = slide_deploy.load(DIGITS)
    images = load_digits().images[:64].repeat(4, axis=1).repeat(4, axis=2) / 16 - 0.5
    calibration = folder / "digits.npy"
    np.save(calibration, images[:, None].repeat(3, axis=1).astype(np.float32))
    options = Options(
        precision="w8a16", calibration=calibration, target_options={"soc": "SM8650,SM8750"}
    )
    report = slide_deploy.export_and_verify(model, "qnn", folder / "out", options)
    return report, folder / "out", model, calibration


@pytest.mark.slow
@simulated
def test_the_simulator_runs_what_the_integers_mean(exported):
    report, folder, *_ = exported
    (check,) = report.checks
    assert (check.verdict, check.problems) == (Verdict.PASS, ())
    assert check.fidelity is Fidelity.SIMULATED
    assert check.runtime.endswith("simulator of SM8650, SM8750")
    assert check.other_precision == ()  # nothing stays in float
    assert check.second_opinion.snr_db >= 40
    assert sorted(path.name for path in (folder / FOLDER).iterdir()) == [
        *("SM8650.onnx", "SM8750.onnx", "model.onnx")
    ]


@pytest.mark.slow
@simulated
def test_the_second_factor_of_a_product_of_activations_is_signed(exported):
    import onnx

    _, folder, *_ = exported
    graph = onnx.load(folder / FOLDER / "model.onnx").graph
    writers = {name: node for node in graph.node for name in node.output}
    points = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    factors = [[writers[name] for name in n.input] for n in graph.node if n.op_type == "MatMul"]
    pairs = [both for both in factors if not any(own.input[0] in points for own in both)]
    found = [[points[own.input[2]] for own in both] for both in pairs]
    assert found
    assert all(a.dtype == np.uint16 and b.dtype == np.int16 and b == 0 for a, b in found)


def refused(broken: Path, model, calibration: Path) -> tuple[str, ...]:
    """What is wrong with an artifact that fails."""
    policy = slide_deploy.VerificationPolicy(precision="w8a16")
    report = slide_deploy.verify(broken, model, policy=policy, calibration=calibration)
    assert report.verdict is Verdict.FAIL
    return report.checks[0].problems


def swap(folder: Path) -> None:
    first, second, aside = folder / "SM8650.onnx", folder / "SM8750.onnx", folder / "aside"
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def stale(folder: Path) -> None:
    """Another weight in the quantized file than in the binaries."""
    import onnx

    path = folder / "model.onnx"
    proto = onnx.load(path)
    quantized = (t for t in proto.graph.initializer if t.data_type == onnx.TensorProto.UINT8)
    tensor = max(quantized, key=lambda t: len(t.raw_data))
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.flat[0] ^= 64
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(proto, path)


def truncate(folder: Path) -> None:
    path = folder / "SM8750.onnx"
    path.write_bytes(path.read_bytes()[:100_000])


def remove(folder: Path) -> None:
    for path in folder.glob("SM*.onnx"):
        path.unlink()


def flip(folder: Path) -> None:
    """One bit in the middle of a binary."""
    path = folder / "SM8650.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@simulated
@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (swap, "is not what model.onnx compiles to for SM8650"),
        (stale, "is not what model.onnx compiles to for"),
        (truncate, "SM8750.onnx"),
        (remove, "has no context binary"),
        (flip, "SM8650.onnx"),
    ],
)
def test_a_damaged_folder_fails(
    exported, tmp_path: Path, damage: Callable[[Path], None], told: str
):
    _, folder, model, calibration = exported
    broken = tmp_path / FOLDER
    shutil.copytree(folder / FOLDER, broken)
    damage(broken)
    problems = refused(broken, model, calibration)
    assert any(told in problem for problem in problems), problems


Values = dict[str, np.ndarray]


def two_steps(values: Values) -> None:
    name = largest_weight(values)
    flat = values[f"{name}_quantized"].reshape(-1)
    flat[7] = flat[7] + 2 if flat[7] < 128 else flat[7] - 2


def scale(values: Values) -> None:
    values[f"{largest_weight(values)}_scale"] *= np.float32(1.05)


def zero_point_of_weights(values: Values) -> None:
    values[f"{largest_weight(values)}_zero_point"] += 1


def zero_point_of_activations(values: Values) -> None:
    values["logits_zero_point"] += 40  # of 65535


def largest_weight(values: Values) -> str:
    names = [n.removesuffix("_quantized") for n, v in values.items() if v.dtype == np.uint8]
    return max(
        (name for name in names if f"{name}_quantized" in values),
        key=lambda name: values[f"{name}_quantized"].size,
    )


@simulated
@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (two_steps, r"has 1 of \d+ weights that are not the nearest integers"),
        (scale, r"has a scale 1\.0\d times as large as its weights need"),
        (zero_point_of_weights, "weights that are not the nearest integers"),
        (zero_point_of_activations, "logits has the range .* off that of the calibration set"),
    ],
)
def test_wrong_numbers_fail_although_the_binary_has_them_too(
    exported, tmp_path: Path, change: Callable[[Values], None], told: str
):
    import onnx

    _, folder, model, calibration = exported
    broken = tmp_path / FOLDER
    broken.mkdir()
    proto = onnx.load(folder / FOLDER / "model.onnx")
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    values = {n: onnx.numpy_helper.to_array(tensor).copy() for n, tensor in tensors.items()}
    change(values)
    for name, tensor in tensors.items():
        tensor.CopyFrom(onnx.numpy_helper.from_array(values[name], name))
    onnx.save(proto, broken / "model.onnx")
    compile_for("SM8650", broken / "model.onnx", broken / "SM8650.onnx")
    assert_refused(broken, model, calibration, told)


@simulated
@pytest.mark.slow
def test_ranges_of_other_data_fail(exported, tmp_path: Path):
    *_, model, calibration = exported
    other = tmp_path / "other.npy"
    np.save(other, np.load(calibration) * 0.7)
    options = Options(precision="w8a16", calibration=other)
    slide_deploy.export(model, "qnn", tmp_path / "out", options)
    broken = (tmp_path / "out" / FOLDER).rename(tmp_path / FOLDER)  # away from its manifest
    assert_refused(broken, model, calibration, "off that of the calibration set")


def assert_refused(broken: Path, model, calibration: Path, told: str) -> None:
    """The artifact fails for this reason, and its binaries belong to it."""
    problems = refused(broken, model, calibration)
    assert any(re.search(told, problem) for problem in problems), problems
    assert not any("compiles to" in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("have", "again", "more", "differs"),
    [
        (b"a" * 64, b"a" * 64, b"a" * 64, False),
        (b"a" * 40 + b"x" * 24, b"a" * 40 + b"y" * 24, b"a" * 40 + b"z" * 24, False),
        (b"b" + b"a" * 63, b"a" * 64, b"a" * 64, True),
        (b"b" + b"a" * 90 + b"x", b"a" * 91 + b"y", b"a" * 91 + b"z", True),
        (b"a" * 63, b"a" * 64, b"a" * 64, True),
    ],
)
def test_bytes_that_each_compilation_changes_are_not_compared(have, again, more, differs):
    assert _differs(have, again, more) is differs


def test_socs_are_named():
    assert parse_socs("sm8650, SM8750,SM8650") == "SM8650,SM8750"
    with pytest.raises(UsageError, match=r"SoC 'SM1' is unknown .*SM8650"):
        parse_socs("SM1")
    assert len(set(SOCS.values())) == len(SOCS)


def test_floats_are_refused():
    with pytest.raises(UsageError, match="computes with integers"):
        options_by_target(["qnn"], Options())


@simulated
def test_operators_that_stay_on_the_cpu_are_named(tmp_path: Path):
    options = Options(precision="w8a16", calibration="synthetic", lowering="im2col")
    with pytest.raises(ConversionError, match=r"leaves operators on the CPU: \S+ \(Gather\), "):
        slide_deploy.export(slide_deploy.load(DIGITS), "qnn", tmp_path / "out", options)


@simulated
def test_free_shapes_are_refused(tmp_path: Path):
    options = Options(precision="w8a16", calibration="synthetic", dynamic=True)
    with pytest.raises(UsageError, match="fixed shapes"):
        slide_deploy.export(slide_deploy.load(DIGITS), "qnn", tmp_path / "out", options)


@pytest.mark.parametrize(
    ("system", "machine", "libc", "told"),
    [
        ("linux", "x86_64", ("glibc", "2.36"), ""),
        ("linux", "x86_64", ("glibc", "2.31"), "it needs glibc 2.35 or newer; this is 2.31"),
        ("linux", "aarch64", ("glibc", "2.36"), "this is linux on aarch64"),
        ("darwin", "arm64", ("", ""), "this is darwin on arm64"),
    ],
)
def test_other_machines_are_told_why(monkeypatch, tmp_path, system, machine, libc, told):
    monkeypatch.setattr(machines.sys, "platform", system)
    monkeypatch.setattr(machines.platform, "machine", lambda: machine)
    monkeypatch.setattr(machines.platform, "libc_ver", lambda: libc)
    assert told in hexagon.unsupported()
    assert bool(hexagon.unsupported()) is bool(told)
