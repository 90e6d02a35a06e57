"""Verification by golden vectors: folders that are not whole, and files that others optimised."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import slide_deploy
from slide_deploy.errors import ArtifactError, UsageError
from slide_deploy.types import Verdict
from slide_deploy.utils.hashing import sha256_of

RunCli = Callable[..., Any]


@pytest.fixture(scope="module")
def exported(lone_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ONNX and TorchScript, each with a free batch."""
    folder = tmp_path_factory.mktemp("exported") / "out"
    model = slide_deploy.load(lone_module, image_size=(6, 7))
    slide_deploy.export(model, "onnx,torchscript", folder, slide_deploy.Options(dynamic=True))
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "out")


def golden_of(folder: Path) -> Path:
    (path,) = folder.glob("*.npz")
    return path


@pytest.fixture
def slim(exported: Path, tmp_path: Path) -> Path:
    """The ONNX file as onnxslim rewrites it, alone in a folder."""
    onnxslim = pytest.importorskip("onnxslim", reason="onnxslim is not installed")
    path = tmp_path / "slim.onnx"
    onnxslim.slim(str(exported / "lone.onnx"), str(path))
    assert sha256_of(path) != sha256_of(exported / "lone.onnx")
    return path


def damage(path: Path) -> None:
    """Make the largest weight tensor of an ONNX file 1 % larger."""
    model = onnx.load(path)
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = onnx.numpy_helper.to_array(largest) * np.float32(1.01)
    largest.CopyFrom(onnx.numpy_helper.from_array(values, largest.name))
    onnx.save(model, path)


def test_a_file_that_another_tool_optimised_passes_by_golden_vectors_alone(
    slim: Path, exported: Path, run_cli: RunCli
) -> None:
    done = run_cli("verify", slim, "--golden", golden_of(exported))
    assert done.code == 0, done.out + done.err
    assert "given by hand (no manifest was compared)" in done.out
    report = slide_deploy.verify_golden(slim, golden=golden_of(exported))
    assert report.verdict is Verdict.PASS
    assert report.source.path_name == "lone.pth"
    assert {comparison.probe for comparison in report.checks[0].comparisons} > {"normal", "ramps"}


def test_an_optimised_file_that_was_damaged_fails(
    slim: Path, exported: Path, run_cli: RunCli
) -> None:
    damage(slim)
    done = run_cli("verify", slim, "--golden", golden_of(exported))
    assert done.code == 1
    assert "times the rounding noise" in done.out


def test_an_optimised_file_with_a_fixed_batch_is_not_what_the_golden_vectors_are_for(
    exported: Path, lone_module: Path, tmp_path: Path
) -> None:
    model = slide_deploy.load(lone_module, image_size=(6, 7))
    slide_deploy.export(model, "torchscript", tmp_path)
    report = slide_deploy.verify_golden(tmp_path / "lone.torchscript", golden=golden_of(exported))
    assert report.verdict is Verdict.FAIL
    assert any("input features is" in problem for problem in report.checks[0].problems)


def test_golden_vectors_at_another_precision_are_refused(
    exported: Path, lone_module: Path, tmp_path: Path
) -> None:
    model = slide_deploy.load(lone_module, image_size=(6, 7))
    half = slide_deploy.Options(precision="float16", dynamic=True)
    slide_deploy.export(model, "torchscript", tmp_path, half)
    (check,) = slide_deploy.verify_golden(
        tmp_path / "lone.torchscript", golden=golden_of(exported)
    ).checks
    assert check.verdict is Verdict.FAIL
    assert "golden vectors are for float32, but lone.torchscript is float16" in check.problems[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--golden", "none.npz"], "none.npz is not a file"),
        (["--golden", "g.npz", "--against", "m.pth"], "--against and --golden exclude each other"),
        (["--golden", "g.npz", "--manifest-sha256", "0" * 64], "exclude each other"),
        (["--manifest-sha256", "beef"], "64 hexadecimal digits"),
    ],
    ids=lambda value: "-".join(value)[:30] if isinstance(value, list) else "",
)
def test_what_a_verdict_cannot_rest_on_is_a_wrong_argument(
    run_cli: RunCli, options: list[str], words: str
) -> None:
    run_cli("verify", "x.onnx", *options).refused(2, words)


def test_a_folder_is_no_artifact_for_golden_vectors_by_hand(folder: Path) -> None:
    with pytest.raises(UsageError, match="not an artifact"):
        slide_deploy.verify_golden(folder, golden=golden_of(folder))


@pytest.mark.parametrize("against", [False, True], ids=["golden", "against"])
def test_a_folder_that_ships_some_artifacts_is_verified_for_those(
    folder: Path, lone_module: Path, against: bool
) -> None:
    (folder / "lone.onnx").unlink()
    if against:
        report = slide_deploy.verify(folder, slide_deploy.load(lone_module, image_size=(6, 7)))
    else:
        report = slide_deploy.verify_golden(folder)
    assert report.verdict is Verdict.PASS
    assert [check.path for check in report.checks] == ["lone.torchscript"]
    assert report.notes == (
        f"lone.onnx is in the manifest but not in {folder}: it was not verified",
    )


def test_a_folder_without_any_of_its_artifacts_is_an_error(folder: Path, run_cli: RunCli) -> None:
    for name in ("lone.onnx", "lone.torchscript"):
        (folder / name).unlink()
    run_cli("verify", folder).refused(1, "none of the artifacts")


def test_a_manifest_of_the_hash_given_passes_and_another_is_refused(
    folder: Path, run_cli: RunCli
) -> None:
    artifact, manifest = folder / "lone.torchscript", folder / "manifest.json"
    known = sha256_of(manifest)
    assert run_cli("verify", artifact, "--manifest-sha256", known.upper()).code == 0
    content = json.loads(manifest.read_text())
    content["toolchain"]["torch"] = "0"
    manifest.write_text(json.dumps(content))
    run_cli("verify", artifact, "--manifest-sha256", known).refused(1, "not the one given")
    with pytest.raises(ArtifactError, match="not the one given"):
        slide_deploy.verify_golden(folder, manifest_sha256=known)
