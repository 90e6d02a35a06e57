"""The Swift package around a Core ML classifier: parsed, and its golden vectors repeated here."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import slide_deploy
from slide_deploy.coreml.swift_package import SOURCES, TESTS, swift_package
from slide_deploy.errors import ArtifactError, UsageError
from slide_deploy.packaging.preprocessing import Rounding, preset
from tests.tiny import TINY

WAY = preset("imagenet", TINY.image_size)
LABELS = ('a "quoted" name', "cat", "dog")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_model, training_config) -> Path:
    """The folder of an export of a tiny classifier of pictures."""
    made = tmp_path_factory.mktemp("export")
    content = {"model": make_model().state_dict(), "config": training_config(TINY)}
    torch.save(content, made / "tiny.pth")
    model = slide_deploy.with_preprocessing(slide_deploy.load(made / "tiny.pth"), WAY)
    model = slide_deploy.with_classifier(replace(model, labels=LABELS))
    slide_deploy.export(model, "coreml", made)
    slide_deploy.export(model, "onnx", made)
    return made


@pytest.fixture(scope="module")
def package(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return swift_package(folder / "tiny.mlpackage", tmp_path_factory.mktemp("swift") / "tiny-swift")


def faults(node: Any) -> Iterator[str]:
    """What the grammar cannot read, by line."""
    if node.type == "ERROR" or node.is_missing:
        yield f"line {node.start_point[0] + 1}: {node.text.decode()[:60]}"
    for child in node.children:
        yield from faults(child)


def test_every_file_is_swift(package: Path) -> None:
    grammar = pytest.importorskip("tree_sitter_swift")
    tree_sitter = pytest.importorskip("tree_sitter")
    parser = tree_sitter.Parser(tree_sitter.Language(grammar.language()))
    files = sorted(package.rglob("*.swift"))
    assert [f.name for f in files] == ["Package.swift", "SlideModel.swift", "GoldenTests.swift"]
    for file in files:
        assert "$width" not in file.read_text()
        assert list(faults(parser.parse(file.read_bytes()).root_node)) == []
        broken = file.read_bytes().replace(b"(", b"", 1)
        assert list(faults(parser.parse(broken).root_node))


def test_the_class_is_short_and_knows_the_package(package: Path) -> None:
    code = (package / SOURCES / "SlideModel.swift").read_text()
    assert len(code.splitlines()) < 100
    for part in ("width = 16", 'forResource: "tiny"', '["image": value]', '"classLabel"'):
        assert part in code
    assert "Int((Double(18 * width) / Double(min(width, height))).rounded(.down))" in code
    assert '.iOS("16.0"), .macOS("13.0")' in (package / "Package.swift").read_text()


def test_the_golden_vectors_are_those_that_the_package_gives(package: Path) -> None:
    golden = json.loads((package / TESTS / "golden.json").read_text())
    assert golden["classes"] == list(LABELS)
    shape = (1, *TINY.image_size, 3)
    feeds = {
        probe["name"]: {
            "image": np.frombuffer(base64.b64decode(probe["pixels"]), np.uint8).reshape(shape)
        }
        for probe in golden["probes"]
    }
    assert len(feeds) > 3
    made = slide_deploy.run_artifact(package / SOURCES / "tiny.mlpackage", feeds).outputs
    for probe in golden["probes"]:
        logs = np.log(np.maximum(made[probe["name"]]["probabilities"][0], golden["smallest"]))
        assert np.abs(logs - probe["logarithms"]).max() <= probe["limit"] < 1e-3
        if probe["best"] is not None:
            assert LABELS[int(logs.argmax())] == probe["best"]
    assert any(probe["best"] for probe in golden["probes"])


def test_what_is_no_classifier_of_pictures_is_refused(folder: Path, package: Path) -> None:
    output = folder / "other"
    with pytest.raises(UsageError, match="exists"):
        swift_package(folder / "tiny.mlpackage", package)
    with pytest.raises(UsageError, match="not a Core ML classifier"):
        swift_package(folder / "tiny.onnx", output)
    with pytest.raises(UsageError, match="has no record"):
        swift_package(package / SOURCES / "tiny.mlpackage", output)
    assert not output.exists()


def test_a_changed_package_is_refused(folder: Path) -> None:
    manifest = folder / "tiny.mlpackage" / "Manifest.json"
    sound = manifest.read_text()
    manifest.write_text(f"{sound}\n")
    with pytest.raises(ArtifactError, match="not the one that was exported"):
        swift_package(folder / "tiny.mlpackage", folder / "other")
    manifest.write_text(sound)


def test_pictures_are_scaled_as_in_training() -> None:
    from slide_deploy.coreml.swift_package import _scaled

    assert _scaled(replace(WAY, resize=None)) == "(width, height)"
    assert _scaled(replace(WAY, resize=(30, 20))) == "(20, 30)"
    assert ".toNearestOrEven" in _scaled(replace(WAY, rounding=Rounding.NEAREST))
