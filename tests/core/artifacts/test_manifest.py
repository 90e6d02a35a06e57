"""The manifest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slide_deploy import export, load
from slide_deploy.artifacts.manifest import (
    Artifact,
    Manifest,
    SourceRecord,
    find_manifest,
    toolchain,
)
from slide_deploy.errors import ArtifactError
from slide_deploy.types import Precision, TensorSpec
from slide_deploy.utils.hashing import sha256_of

ARTIFACT = Artifact(
    target="onnx",
    path="model.onnx",
    precision=Precision.FLOAT32,
    sha256="0" * 64,
    size_bytes=3,
    inputs=(TensorSpec("image", ("batch", 3, 8, 8)),),
    outputs=(TensorSpec("logits", ("batch", 2)),),
)
MANIFEST = Manifest(
    source=SourceRecord("model.pth", "1" * 64, "ema"),
    model={"name": "model", "config": {"depths": [2, 2]}},
    artifacts=(ARTIFACT,),
    toolchain={"torch": "2.13.0"},
)


def test_a_manifest_comes_back_as_it_went(tmp_path: Path) -> None:
    MANIFEST.save(tmp_path)
    assert find_manifest(tmp_path) == MANIFEST


def test_a_folder_without_one_has_none(tmp_path: Path) -> None:
    assert find_manifest(tmp_path) is None


def test_one_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        find_manifest(tmp_path)


def test_entries_are_found_by_file_name(tmp_path: Path) -> None:
    assert MANIFEST.entry(tmp_path / "model.onnx") == ARTIFACT
    assert MANIFEST.entry(tmp_path / "other.onnx") is None


def test_the_names_that_were_promised(tmp_path: Path) -> None:
    MANIFEST.save(tmp_path)
    written = json.loads((tmp_path / "manifest.json").read_text())
    assert {"schema_version", "source", "model", "artifacts", "toolchain"} <= written.keys()
    assert {"path_name", "sha256", "weights"} <= written["source"].keys()
    (entry,) = written["artifacts"]
    assert {"target", "path", "precision", "sha256", "inputs", "outputs"} <= entry.keys()
    assert {"name", "shape", "dtype"} <= entry["inputs"][0].keys()


def test_the_toolchain_names_what_shapes_an_artifact() -> None:
    import torch

    assert toolchain()["torch"] == torch.__version__
    assert {"python", "platform", "slide-deploy", "numpy"} <= toolchain().keys()


@pytest.fixture
def write(tiny_file: Callable[..., Path], tmp_path: Path) -> Callable[..., Manifest]:
    """write(*targets, **changes): export the tiny model, or one with other weights."""

    def run(*targets: str, **changes: Any) -> Manifest:
        model = load(tiny_file("tiny.pth", **changes))
        return export(model, targets, tmp_path / "out", progress=lambda step: None)

    return run


def test_the_hash_on_record_is_that_of_the_file(
    write: Callable[..., Manifest], tmp_path: Path
) -> None:
    (entry,) = write("torchscript").artifacts
    assert entry.sha256 == sha256_of(tmp_path / "out" / entry.path)


def test_a_second_export_keeps_what_is_of_the_same_weights(
    write: Callable[..., Manifest], tmp_path: Path
) -> None:
    write("torchscript")
    write("openvino")
    found = find_manifest(tmp_path / "out")
    assert found is not None
    assert {entry.target for entry in found.artifacts} == {"torchscript", "openvino"}


def test_a_second_export_drops_what_is_of_other_weights(
    write: Callable[..., Manifest], make_model: Callable[..., Any], tmp_path: Path
) -> None:
    write("torchscript")
    state = make_model().state_dict()
    state["norm.bias"] += 1
    write("openvino", model=state)
    found = find_manifest(tmp_path / "out")
    assert found is not None
    assert [entry.target for entry in found.artifacts] == ["openvino"]


@pytest.mark.slow
def test_a_second_export_drops_what_is_gone(write: Callable[..., Manifest], tmp_path: Path) -> None:
    write("torchscript")
    (tmp_path / "out" / "tiny.torchscript").unlink()
    write("openvino")
    found = find_manifest(tmp_path / "out")
    assert found is not None
    assert [entry.target for entry in found.artifacts] == ["openvino"]


def test_an_export_beside_a_broken_manifest_changes_nothing(
    write: Callable[..., Manifest], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        write("torchscript")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("version", [True, "1", 1.5, 2, None])
def test_another_schema_version_is_refused(tmp_path: Path, version: object) -> None:
    MANIFEST.save(tmp_path)
    content = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**content, "schema_version": version}))
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        find_manifest(tmp_path)
