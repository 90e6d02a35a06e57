"""Artifacts that were made again beside the earlier ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import slide_deploy
from slide_deploy.artifacts.manifest import find_manifest
from slide_deploy.utils.hashing import sha256_of
from slide_deploy.verification.likeness import compared_artifacts, largest_difference
from slide_deploy.verification.replay import ReplayedArtifact, version_changes


@pytest.fixture(scope="module")
def exported(lone_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    model = slide_deploy.load(lone_module, image_size=(8, 8))
    slide_deploy.export(model, ["onnx", "openvino"], folder)
    return folder


def compared(
    exported: Path, before: Path, edit: Callable[[Path], Any], *, recorded: bool = True
) -> dict[str, ReplayedArtifact]:
    """The comparison with an earlier export, in whose folder `edit` changes files; the manifest has
    the changed hashes where it is `recorded`."""
    shutil.copytree(exported, before)
    edit(before)
    manifest = find_manifest(exported)
    assert manifest
    hashes = [
        sha256_of(before / a.path) if recorded and (before / a.path).exists() else "0" * 64
        for a in manifest.artifacts
    ]
    artifacts = zip(manifest.artifacts, hashes, strict=True)
    earlier = replace(manifest, artifacts=tuple(replace(a, sha256=h) for a, h in artifacts))
    return {a.target: a for a in compared_artifacts(before, earlier, exported, manifest)}


def edited(edit: Callable[[Any], Any]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        proto = onnx.load(folder / "lone.onnx")
        edit(proto)
        onnx.save(proto, folder / "lone.onnx")

    return change


def test_other_bytes_with_the_same_numbers(exported: Path, tmp_path: Path) -> None:
    edit = edited(lambda proto: setattr(proto, "doc_string", "written by another version"))
    found = compared(exported, tmp_path / "before", edit)
    assert found["openvino"].likeness == "same bytes"
    assert found["onnx"].likeness == "same numbers, other bytes"
    assert found["onnx"].max_abs_difference == 0
    assert found["onnx"].before != found["onnx"].now == sha256_of(exported / "lone.onnx")


def test_a_weight_that_differs_in_its_last_bits_gives_other_numbers(
    exported: Path, tmp_path: Path
) -> None:
    def nudge(proto: Any) -> None:
        weight = max(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        values = onnx.numpy_helper.to_array(weight) * np.float32(1 + 2**-20)
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))

    found = compared(exported, tmp_path / "before", edited(nudge))["onnx"]
    assert found.likeness == "other numbers"
    assert found.max_abs_difference is not None
    assert 0 < found.max_abs_difference < 1


def test_the_files_of_a_folder_that_differ_are_named(exported: Path, tmp_path: Path) -> None:
    def comment(folder: Path) -> None:
        path = folder / "lone_openvino_model" / "lone.xml"
        path.write_text(path.read_text() + "<!-- written by another version -->\n")

    found = compared(exported, tmp_path / "before", comment)["openvino"]
    assert found.likeness == "same numbers, other bytes"
    assert found.files == ("lone.xml",)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "lone.onnx").unlink(), "not beside its manifest"),
        (lambda folder: (folder / "lone.onnx").write_bytes(b"x"), "has changed since its manifest"),
    ],
)
def test_an_earlier_artifact_that_is_lost_is_not_compared(
    exported: Path, tmp_path: Path, damage: Callable[[Path], Any], reason: str
) -> None:
    found = compared(exported, tmp_path / "before", damage, recorded=False)["onnx"]
    assert found.likeness == "other bytes, numbers not compared"
    assert reason in found.reason


def test_an_earlier_artifact_that_cannot_be_run_says_why(exported: Path, tmp_path: Path) -> None:
    damage = lambda folder: (folder / "lone.onnx").write_bytes(b"x")  # noqa: E731
    found = compared(exported, tmp_path / "before", damage)["onnx"]
    assert found.likeness == "other bytes, numbers not compared"
    assert "lone.onnx" in found.reason


def test_an_artifact_that_was_not_made_is_no_likeness(exported: Path) -> None:
    manifest = find_manifest(exported)
    assert manifest
    found = compared_artifacts(exported, manifest, exported, None)
    assert {own.likeness for own in found} == {"not made"}


def test_versions_of_packages_that_came_and_went() -> None:
    found = version_changes({"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "1"})
    assert [(v.package, v.before, v.now) for v in found] == [
        ("b", "1", "2"),
        ("c", "1", ""),
        ("d", "", "1"),
    ]


def test_the_difference_of_outputs() -> None:
    zeros, ones = np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32)
    nan = np.array([[np.nan, 1]], np.float32)
    assert largest_difference({"p": {"y": zeros}}, {"p": {"y": zeros}}) == 0
    assert largest_difference({"p": {"y": zeros}}, {"p": {"y": ones}}) == 1
    assert largest_difference({"p": {"y": nan}}, {"p": {"y": nan}}) == 0
    for other in ({"y": nan}, {"z": zeros}, {"y": zeros[0]}, {}):
        assert largest_difference({"p": {"y": zeros}}, {"p": other}) == float("inf")
