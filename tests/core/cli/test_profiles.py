"""slide-deploy profiles, and export --for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import slide_deploy
from slide_deploy.artifacts.manifest import find_manifest
from slide_deploy.cli.profiles import chosen_for
from slide_deploy.errors import UnknownName, UsageError
from slide_deploy.packaging.next_step import write_samples
from slide_deploy.packaging.profiles import PROFILES, profile_named

DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "slide_swin_digits.pth"


def chosen(name, targets=None, precision=None, preprocess=None, batch=1, opset=None, **switches):
    given = {"half": False, "dynamic": False, **switches}
    return chosen_for(name, targets, precision, preprocess, batch, opset, **given)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda p: p.name)
def test_a_profile_chooses_and_gives_its_reasons(profile) -> None:
    found = chosen(profile.name)
    assert found.targets == [profile.target.value]
    assert found.precision == profile.precision.value
    assert found.dynamic == (profile.batch.value == "any")
    assert found.notes == profile.lines()


def test_an_option_overrides_a_choice_and_its_reason() -> None:
    found = chosen("iphone", targets=["onnx"], precision="float32", preprocess="none", batch=2)
    assert (found.targets, found.precision, found.preprocess) == (["onnx"], "float32", "none")
    assert [note.partition(":")[2].split()[0] for note in found.notes] == ["no"]
    assert chosen("server", half=True).precision == "float16"
    assert not chosen("server", batch=4).dynamic
    assert (chosen("rknn").opset, chosen("rknn", opset=18).opset) == (19, 18)
    assert "opset" not in " ".join(chosen("rknn", opset=18).notes)


def test_a_profile_must_be_known_or_a_target_given() -> None:
    with pytest.raises(UnknownName, match="unknown profile 'iphon'"):
        profile_named("iphon")
    with pytest.raises(UsageError, match="neither --target nor --for"):
        chosen(None)


@pytest.mark.slow
def test_export_for_a_phone(run_cli, tmp_path: Path) -> None:
    done = run_cli("export", DIGITS, "--for", "iphone", "-t", "torchscript", "-o", tmp_path / "out")
    assert done.code == 0, done.err
    manifest = find_manifest(tmp_path / "out")
    assert manifest is not None
    (record,) = manifest.artifacts
    assert (record.target, record.precision) == ("torchscript", "float16")
    assert record.inputs[0].is_picture
    assert "the Neural Engine computes in float16" in done.err + done.out


def test_the_list_names_every_profile(run_cli) -> None:
    shown = run_cli("profiles").out
    assert all(profile.name in shown for profile in PROFILES)


# Of 'RKNNToolKit2_OP_Support-v2.1.0.md' in Rockchip's repository, those that models here may have.
RKNN_HAS = {
    *("Add", "Cast", "Clip", "Concat", "Conv", "Div", "Erf", "Exp", "Expand", "Flatten", "Gather"),
    *("Gemm", "GlobalAveragePool", "Identity", "LayerNormalization", "MatMul", "Max", "Mul", "Pad"),
    *("Pow", "ReduceMax", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Resize", "Sigmoid"),
    *("Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Tile", "Transpose"),
    *("Unsqueeze", "Where"),
}


@pytest.mark.parametrize(("name", "opset"), [("rknn", 19), ("vitis", 17)])
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=() if path == DIGITS else pytest.mark.slow, id=path.stem)
        for path in sorted(DIGITS.parent.glob("*.pth"))
    ],
)
def test_the_file_for_a_vendor_obeys_the_limits_of_its_tools(
    name: str, opset: int, path: Path, tmp_path: Path
) -> None:
    import onnx

    found = chosen(name)
    options = slide_deploy.Options(found.precision, opset=found.opset, profile=name)
    slide_deploy.export(slide_deploy.load(path), found.targets, tmp_path, options)
    proto = onnx.load(tmp_path / f"{path.stem}.onnx")
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", opset)]
    assert {node.op_type for node in proto.graph.node} <= RKNN_HAS
    (image,) = proto.graph.input
    shape = [size.dim_value for size in image.type.tensor_type.shape.dim]
    assert (shape, image.type.tensor_type.elem_type) == ([1, 3, 32, 32], onnx.TensorProto.FLOAT)


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    steps = rng.standard_normal((32, 3, 32, 32), dtype=np.float32)
    np.save(tmp_path / "set.npy", steps.cumsum(-1).cumsum(-2) / 30)
    return tmp_path / "set.npy"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rknn", "vitis"])
def test_a_vendor_gets_the_samples_and_the_reader_the_commands(
    run_cli, calibration: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    done = run_cli("export", DIGITS, "--for", name, "--calibration", calibration, "-o", out)
    assert done.code == 0, done.err
    manifest = find_manifest(out)
    assert manifest is not None
    (record,) = manifest.artifacts
    step = record.next_step
    assert (step.profile, step.samples) == (name, "slide_swin_digits_calibration")
    assert record.recipe.options["opset"] == str(chosen(name).opset)
    lines = (out / step.samples / "dataset.txt").read_text().splitlines()
    assert len(lines) == 32
    taken = np.concatenate([np.load(out / step.samples / line) for line in lines])
    assert np.array_equal(taken, np.load(calibration))
    shown, page = done.out + done.err, (out / "slide_swin_digits.md").read_text()
    told = " ".join(shown.split())
    assert "not compiled here" in told
    assert "not compiled here" in page
    for command in step.commands:
        assert command in page
        assert "".join(command.split()) in "".join(shown.split())
    assert step.samples in step.commands[0 if name == "vitis" else 1]


@pytest.mark.slow
def test_without_samples_a_vendor_compiles_what_there_is(run_cli, tmp_path: Path) -> None:
    done = run_cli("export", DIGITS, "--for", "rknn", "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert not (tmp_path / "out" / "slide_swin_digits_calibration").exists()
    assert "do_Quant" not in done.out + done.err


def test_a_calibration_set_of_no_use_is_still_refused(run_cli, calibration: Path) -> None:
    for more in (["-t", "onnx"], ["--for", "intel-npu"], ["--for", "server"]):
        done = run_cli("export", DIGITS, *more, "--calibration", calibration)
        done.refused(2, "needs no calibration set")


@pytest.mark.slow
def test_the_same_files_for_a_vendor_are_made_again(
    run_cli, calibration: Path, tmp_path: Path
) -> None:
    shutil.copy(DIGITS, tmp_path)
    given = ("--for", "rknn", "--calibration", calibration, "-o", tmp_path / "out")
    assert run_cli("export", tmp_path / DIGITS.name, *given).code == 0
    done = run_cli("export", "--from", tmp_path / "out", "-o", tmp_path / "again", "--json")
    assert done.code == 0, done.err
    (compared,) = json.loads(done.out)["replay"]["artifacts"]
    assert compared["likeness"] == "same bytes"
    manifests = (find_manifest(tmp_path / name) for name in ("out", "again"))
    first, again = (manifest.artifacts[0].next_step for manifest in manifests)
    assert first == again
    for path in (tmp_path / "out" / first.samples).iterdir():
        assert path.read_bytes() == (tmp_path / "again" / again.samples / path.name).read_bytes()


def test_several_inputs_have_a_folder_each(tmp_path: Path) -> None:
    runs = [{"image": np.full((1, 2), n), "mask": np.full((1, 3), -n)} for n in range(2)]
    write_samples(runs, tmp_path)
    listed = (tmp_path / "dataset.txt").read_text()
    assert listed == "image/000000.npy mask/000000.npy\nimage/000001.npy mask/000001.npy\n"
    assert np.array_equal(np.load(tmp_path / "mask" / "000001.npy"), runs[1]["mask"])
