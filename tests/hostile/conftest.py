"""Artifacts of all targets, which tests copy and change."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from slide_deploy import Options, export, load

SIZE = (6, 7)
FILES = {
    "onnx": "lone.onnx",
    "torchscript": "lone.torchscript",
    "openvino": "lone_openvino_model",
    "coreml": "lone.mlpackage",
}


@pytest.fixture(scope="session")
def exported(lone_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every target's artifact of the lone module, and their manifest."""
    folder = tmp_path_factory.mktemp("exported")
    model = load(lone_module, image_size=SIZE)
    # The canonical form keeps the model's own weights in the file, where the tests look for them.
    options = Options(lowering="depthwise")
    export(model, tuple(FILES), folder, options, progress=lambda step: None)
    return folder


@pytest.fixture(scope="session")
def sibling(lone_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the same architecture, one more step of training away."""
    state = torch.load(lone_module, weights_only=True)
    state["proj.bias"] += 1e-3
    path = tmp_path_factory.mktemp("sibling") / "lone.pth"
    torch.save(state, path)
    return path


@pytest.fixture
def artifact(exported: Path, tmp_path: Path) -> Callable[[str], Path]:
    """artifact(target): a copy of that target's artifact, its manifest beside it."""

    def copy(target: str) -> Path:
        folder = tmp_path / "deployed"
        shutil.copytree(exported, folder)
        return folder / FILES[target]

    return copy
