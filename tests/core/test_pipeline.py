"""An export runs the model once for all targets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import slide_deploy
from slide_deploy.artifacts import prepare
from slide_deploy.artifacts.manifest import Artifact, Manifest, SourceRecord
from slide_deploy.artifacts.write import superseded_golden
from slide_deploy.errors import ConversionError
from slide_deploy.pipeline import export as pipeline


def test_free_sizes_are_found_once_for_all_targets(
    lone_module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finding them runs the model."""
    runs: list[str] = []
    find = prepare.dynamic_size_of

    def counted(model: Any) -> Any:
        runs.append(model.name)
        return find(model)

    monkeypatch.setattr(prepare, "dynamic_size_of", counted)
    model = slide_deploy.load(lone_module, image_size=(8, 8))
    options = slide_deploy.Options(dynamic_size=True)
    report = slide_deploy.export_and_verify(model, "jit,openvino", tmp_path / "out", options)
    assert [check.verdict for check in report.checks] == ["pass", "pass"], report.checks
    assert runs == ["lone"]


def test_no_target_is_a_usage_error(lone_module: Path, tmp_path: Path) -> None:
    model = slide_deploy.load(lone_module, image_size=(8, 8))
    with pytest.raises(slide_deploy.errors.UsageError, match="no target"):
        slide_deploy.export(model, [], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_two_exports_at_two_sizes_into_one_folder_both_verify(
    lone_module: Path, tmp_path: Path
) -> None:
    for target, size in (("jit", (6, 7)), ("openvino", (8, 8))):
        slide_deploy.export(slide_deploy.load(lone_module, image_size=size), target, tmp_path)
    report = slide_deploy.verify_golden(tmp_path)
    assert [check.verdict for check in report.checks] == ["pass", "pass"], report.checks
    assert len(list(tmp_path.glob("*.npz"))) == 2


def test_golden_vectors_that_no_manifest_names_any_more_are_removed(
    lone_module: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.golden-1.npz").write_bytes(b"mine")
    for size in ((6, 7), (8, 8)):
        slide_deploy.export(slide_deploy.load(lone_module, image_size=size), "jit", tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    named = {artifact["golden"] for artifact in manifest["artifacts"]}
    assert {path.name for path in tmp_path.glob("*.npz")} == {*named, "mine.golden-1.npz"}


@pytest.mark.parametrize("name", ["../a.golden-1.npz", "/tmp/a.golden-1.npz", "a.onnx", "", "."])
def test_a_manifest_has_nothing_else_removed(tmp_path: Path, name: str) -> None:
    earlier, new = (tmp_path / part for part in ("earlier", "new"))
    source = SourceRecord("m.pth", "0" * 64, "model")
    artifact = Artifact("onnx", "m.onnx", "float32", "0" * 64, 0, (), (), golden=name)
    for folder, artifacts in ((earlier, (artifact,)), (new, ())):
        folder.mkdir()
        Manifest(source, {}, artifacts, {}).save(folder)
    assert superseded_golden(new, earlier) == []


def test_a_failed_conversion_leaves_the_manifest_of_another_checkpoint(
    lone_module: Path, golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide_deploy.export(slide_deploy.load(lone_module, image_size=(6, 7)), "jit", tmp_path)
    before = (tmp_path / "manifest.json").read_bytes()

    def fail(*_: object) -> None:
        raise ConversionError("it broke", "mend it")

    monkeypatch.setattr(pipeline, "write_artifact", fail)
    other = slide_deploy.load(golden / "micro_ema.pth")
    report = slide_deploy.export_and_verify(other, "jit", tmp_path)
    assert report.verdict == "fail"
    assert (tmp_path / "manifest.json").read_bytes() == before
