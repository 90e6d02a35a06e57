"""`verify` exits with 1 for changed artifacts, both by hash and by outputs."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from slide_deploy import export, load

RunCli = Callable[..., Any]
CopyOf = Callable[[str], Path]
TARGETS = ("onnx", "torchscript", "openvino", "coreml")
SIZE = "6x7"

# One format is tried daily; others differ in their readers.
DAILY = ("onnx",)

every_target = pytest.mark.parametrize(
    "target", [pytest.param(t, marks=() if t in DAILY else pytest.mark.slow) for t in TARGETS]
)


@pytest.fixture
def verify(run_cli: RunCli, lone_module: Path) -> Callable[..., Any]:
    """verify(path): the command on an artifact of the lone module."""
    return lambda *paths: run_cli("verify", *paths, "--against", lone_module, "--image-size", SIZE)


@pytest.fixture(scope="session")
def weight(lone_module: Path) -> float:
    """The largest weight of the qkv projection, which every target stores as it is."""
    values = torch.load(lone_module, weights_only=True)["qkv.weight"].numpy().ravel()
    return float(values[np.abs(values).argmax()])


def change_bytes(data: bytes, value: float) -> bytes:
    """The same with the one float32 `value` made 10 % larger."""
    old, new = struct.pack("<f", value), struct.pack("<f", np.float32(value * 1.1))
    assert data.count(old) == 1
    return data.replace(old, new)


def change_weight(path: Path, value: float) -> None:
    """Change one weight inside an artifact; the file stays a well-formed one."""
    if path.suffix == ".torchscript":
        with zipfile.ZipFile(path) as archive:
            parts = [(info, archive.read(info)) for info in archive.infolist()]
        hits = 0
        with zipfile.ZipFile(path, "w") as archive:
            for info, data in parts:
                if struct.pack("<f", value) in data:
                    data, hits = change_bytes(data, value), hits + 1
                archive.writestr(info, data)
        assert hits == 1
        return
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    old = struct.pack("<f", value)
    (file,) = (file for file in files if old in file.read_bytes())
    file.write_bytes(change_bytes(file.read_bytes(), value))


def failed(result: Any, *words: str) -> None:
    assert "Traceback" not in result.out + result.err, result.err
    assert result.code == 1, result.out + result.err
    for word in words:
        assert word in result.out + result.err


def verdicts(result: Any) -> dict[str, str]:
    """The verdict in each row of the table."""
    rows = [line.strip("│ ").split() for line in result.out.splitlines() if "│" in line]
    return {row[0]: row[-1] for row in rows}


def without_manifest(path: Path) -> Path:
    (path.parent / "manifest.json").unlink()
    return path


def test_artifacts_as_exported_pass(artifact: CopyOf, verify: Callable[..., Any]) -> None:
    result = verify(artifact("onnx").parent)
    assert result.code == 0, result.out
    assert verdicts(result) == dict.fromkeys(TARGETS, "passed")


def test_artifacts_need_no_manifest(artifact: CopyOf, verify: Callable[..., Any]) -> None:
    assert verify(without_manifest(artifact("onnx"))).code == 0


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_one_changed_weight_fails_by_its_hash(
    artifact: CopyOf, verify: Callable[..., Any], weight: float, target: str
) -> None:
    path = artifact(target)
    change_weight(path, weight)
    failed(verify(path), "has changed since it was exported")


@every_target
def test_one_changed_weight_fails_by_its_numbers(
    artifact: CopyOf, verify: Callable[..., Any], weight: float, target: str
) -> None:
    path = without_manifest(artifact(target))
    change_weight(path, weight)
    failed(verify(path), "times the rounding noise")


@every_target
def test_a_truncated_artifact_fails(
    artifact: CopyOf, verify: Callable[..., Any], target: str
) -> None:
    path = without_manifest(artifact(target))
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
    largest = max(files, key=lambda file: file.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size * 2 // 3])
    failed(verify(path), "FAILED")


@every_target
def test_an_emptied_artifact_fails(
    artifact: CopyOf, verify: Callable[..., Any], target: str
) -> None:
    path = without_manifest(artifact(target))
    if path.is_dir():
        shutil.rmtree(path)
        path.mkdir()
    else:
        path.write_bytes(b"")
    failed(verify(path), "FAILED")


def test_an_artifact_fails_against_a_sibling_of_its_model(
    artifact: CopyOf, run_cli: RunCli, sibling: Path
) -> None:
    result = run_cli("verify", artifact("onnx"), "--against", sibling, "--image-size", SIZE)
    failed(result, "was exported from lone.pth", "times the rounding noise")


def test_a_sibling_is_told_apart_by_numbers_alone(
    artifact: CopyOf, run_cli: RunCli, sibling: Path
) -> None:
    path = without_manifest(artifact("onnx"))
    result = run_cli("verify", path, "--against", sibling, "--image-size", SIZE)
    failed(result, "times the rounding noise")


@pytest.mark.parametrize("target", ["onnx", "coreml"])
def test_an_artifact_fails_against_a_model_of_another_family(
    artifact: CopyOf, run_cli: RunCli, golden: Path, target: str
) -> None:
    path = without_manifest(artifact(target))
    failed(run_cli("verify", path, "--against", golden / "micro_official.pth"), "FAILED")


def test_an_artifact_fails_against_the_model_at_another_size(
    artifact: CopyOf, run_cli: RunCli, lone_module: Path
) -> None:
    path = artifact("onnx")
    failed(run_cli("verify", path, "--against", lone_module, "--image-size", "7x6"), "FAILED")


def test_an_artifact_of_the_other_weights_fails(
    run_cli: RunCli, lone_module: Path, sibling: Path, tmp_path: Path
) -> None:
    model, averaged = (torch.load(path, weights_only=True) for path in (lone_module, sibling))
    both = tmp_path / "both.pth"
    torch.save({"model": model, "state_dict_ema": averaged}, both)
    export(load(both, image_size=(6, 7)), ["onnx"], tmp_path, progress=lambda step: None)
    path = tmp_path / "both.onnx"
    result = run_cli("verify", path, "--against", both, "--weights", "model", "--image-size", SIZE)
    failed(result, "ema weights", "times the rounding noise")


def test_one_bad_artifact_among_good_ones_fails_them_all(
    artifact: CopyOf, verify: Callable[..., Any], weight: float
) -> None:
    bad = artifact("openvino")
    change_weight(bad, weight)
    result = verify(bad, bad.parent / "lone.onnx")
    failed(result)
    assert verdicts(result) == {"openvino": "FAILED", "onnx": "passed"}


def test_an_artifact_swapped_for_another_targets_fails(
    artifact: CopyOf, verify: Callable[..., Any]
) -> None:
    path = artifact("onnx")
    shutil.copy(path.parent / "lone.torchscript", path)
    failed(verify(path), "cannot be loaded")


@pytest.mark.parametrize("name", ["other.txt", "other.mlmodel", "lone"])
def test_what_is_no_artifact_is_a_wrong_argument(
    artifact: CopyOf, verify: Callable[..., Any], name: str
) -> None:
    path = artifact("onnx").with_name(name)
    path.write_text("x")
    verify(path).refused(2, name)


def test_an_artifact_that_is_not_there_is_a_wrong_argument(
    artifact: CopyOf, verify: Callable[..., Any]
) -> None:
    verify(artifact("onnx").with_name("no.onnx")).refused(2, "no.onnx does not exist")


Manifest = dict[str, Any]


@pytest.fixture
def with_manifest(artifact: CopyOf) -> Callable[..., Path]:
    """with_manifest(target, change): the artifact, its manifest changed by `change`."""

    def edit(target: str, change: Callable[[Manifest, Manifest], None]) -> Path:
        path = artifact(target)
        file = path.parent / "manifest.json"
        manifest = json.loads(file.read_text())
        (entry,) = (one for one in manifest["artifacts"] if one["path"] == path.name)
        change(manifest, entry)
        file.write_text(json.dumps(manifest))
        return path

    return edit


@pytest.fixture
def read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Artifacts that stay as they are run once for all tests that ask for this."""
    from slide_deploy.utils.hashing import sha256_of
    from slide_deploy.verification import check as verification

    read = verification.read_artifact

    def save_tuning(target: str, path: Path, feeds: Any, **more: Any) -> Any:
        shapes = {(p, n): value.shape for p, values in feeds.items() for n, value in values.items()}
        key = (target, sha256_of(path), repr(shapes), repr(more))
        if key not in READINGS:
            READINGS[key] = read(target, path, feeds, **more)
        return READINGS[key]

    monkeypatch.setattr(verification, "read_artifact", save_tuning)


READINGS: dict[Any, Any] = {}


@pytest.mark.usefixtures("read_once")
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda m, a: a.update(sha256="0" * 64), id="hash"),
        pytest.param(lambda m, a: m["source"].update(sha256="0" * 64), id="source"),
        pytest.param(lambda m, a: m["source"].update(weights="ema"), id="weights"),
        pytest.param(lambda m, a: m.update(schema_version=99), id="version"),
        pytest.param(lambda m, a: m.pop("source"), id="no-source"),
        pytest.param(lambda m, a: m.update(artifacts={}), id="no-list"),
        pytest.param(lambda m, a: a.update(precision="float7"), id="precision-unknown"),
        pytest.param(lambda m, a: a.update(precision="float16"), id="precision"),
        pytest.param(lambda m, a: a["inputs"][0].update(shape=[3, 64, 6, 7]), id="batch"),
        pytest.param(lambda m, a: a.update(inputs=[]), id="no-inputs"),
        pytest.param(lambda m, a: a["inputs"][0].update(shape=[]), id="scalar"),
        pytest.param(lambda m, a: a["inputs"][0].update(shape=["N", 1]), id="free"),
        pytest.param(lambda m, a: a["inputs"][0].update(shape=[-1]), id="negative"),
        pytest.param(lambda m, a: a["inputs"][0].update(name="other"), id="input-name"),
        pytest.param(lambda m, a: a.update(target="coreml"), id="target"),
    ],
)
def test_an_edited_manifest_fails(
    with_manifest: Callable[..., Path], verify: Callable[..., Any], change: Any
) -> None:
    failed(verify(with_manifest("onnx", change)))


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"schema_version": 1}', "\x00"])
def test_a_manifest_that_is_none_is_one_clear_error(
    artifact: CopyOf, verify: Callable[..., Any], content: str
) -> None:
    path = artifact("onnx")
    (path.parent / "manifest.json").write_text(content)
    verify(path).refused(1, "manifest.json")


def test_an_edited_hash_does_not_hide_a_changed_weight(
    with_manifest: Callable[..., Path], verify: Callable[..., Any], weight: float
) -> None:
    from slide_deploy.utils.hashing import sha256_of

    path = with_manifest("onnx", lambda manifest, entry: None)
    change_weight(path, weight)
    file = path.parent / "manifest.json"
    manifest = json.loads(file.read_text())
    for entry in manifest["artifacts"]:
        entry["sha256"] = sha256_of(path.parent / entry["path"])
    file.write_text(json.dumps(manifest))
    failed(verify(path), "times the rounding noise")


def test_a_file_added_to_an_artifacts_folder_fails(
    artifact: CopyOf, verify: Callable[..., Any]
) -> None:
    path = artifact("openvino")
    (path / "notes.txt").write_text("x")
    failed(verify(path), "has changed since it was exported")


def edit_onnx(path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)


def test_a_custom_operator_fails_though_the_numbers_are_right(
    artifact: CopyOf, verify: Callable[..., Any]
) -> None:
    path = without_manifest(artifact("onnx"))

    def add(model: onnx.ModelProto) -> None:
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
        source = model.graph.input[0].name
        model.graph.node.append(
            onnx.helper.make_node("Gelu", [source], ["unused"], domain="com.microsoft")
        )

    edit_onnx(path, add)
    result = verify(path)
    failed(result, "custom operator com.microsoft::Gelu")
    assert "times the rounding noise" not in result.out


def test_a_function_of_the_files_own_fails(artifact: CopyOf, verify: Callable[..., Any]) -> None:
    path = without_manifest(artifact("onnx"))

    def add(model: onnx.ModelProto) -> None:
        node = onnx.helper.make_node("Identity", ["a"], ["b"])
        opset = [onnx.helper.make_opsetid("", model.opset_import[0].version)]
        model.functions.append(
            onnx.helper.make_function("mine", "Own", ["a"], ["b"], [node], opset)
        )

    edit_onnx(path, add)
    failed(verify(path), "Own")


def test_weights_outside_of_the_file_fail(artifact: CopyOf, verify: Callable[..., Any]) -> None:
    path = without_manifest(artifact("onnx"))
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    failed(verify(path), "outside the file")


def test_other_names_of_inputs_fail(artifact: CopyOf, verify: Callable[..., Any]) -> None:
    path = without_manifest(artifact("onnx"))

    def rename(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            for index, name in enumerate(node.input):
                if name == "features":
                    node.input[index] = "pixels"
        model.graph.input[0].name = "pixels"

    edit_onnx(path, rename)
    failed(verify(path), "FAILED")


@pytest.fixture
def foreign(tmp_path: Path) -> Callable[..., Path]:
    """foreign(shape): an ONNX file of someone else, with an input of this shape."""

    def make(*shape: int | str | None) -> Path:
        info = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("Relu", ["features"], ["attended"])],
            "foreign",
            [info("features", onnx.TensorProto.FLOAT, shape)],
            [info("attended", onnx.TensorProto.FLOAT, shape)],
        )
        opset = [onnx.helper.make_opsetid("", 18)]
        model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)
        onnx.save(model, tmp_path / "foreign.onnx")
        return tmp_path / "foreign.onnx"

    return make


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(("N", 64, 6, 7), id="named"),
        pytest.param((None, 64, 6, 7), id="unnamed"),
        pytest.param(("N",), id="row"),
        pytest.param((0, 64, 6, 7), id="empty"),
        pytest.param((), id="scalar"),
    ],
)
def test_files_of_others_are_judged_not_crashed_on(
    foreign: Callable[..., Path], verify: Callable[..., Any], shape: tuple[Any, ...]
) -> None:
    failed(verify(foreign(*shape)), "FAILED")
