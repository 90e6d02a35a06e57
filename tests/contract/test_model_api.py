"""OpenVINO packages in OpenVINO's Model API, Intel's wrapper for applications."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import torch

import slide_deploy
from slide_deploy import Model
from slide_deploy.packaging.preprocessing import preset
from tests.tiny import TINY

pytestmark = pytest.mark.filterwarnings("ignore")  # of the Model API

models = pytest.importorskip("model_api.models", reason="openvino-model-api is not installed")

LABELS = ("cat", "a dog", "Köter")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, make_model, training_config) -> Model:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pth"
    torch.save({"model": make_model().state_dict(), "config": training_config(TINY)}, path)
    return slide_deploy.load(path)


def exported(model: Model, folder: Path) -> Path:
    manifest = slide_deploy.export(model, "openvino", folder)
    return folder / manifest.artifacts[0].path


def wrapper(artifact: Path) -> Any:
    """In float32, as artifacts are verified."""
    (description,) = artifact.glob("*.xml")
    from model_api.adapters import OpenvinoAdapter

    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    adapter = OpenvinoAdapter(openvino.Core(), str(description), plugin_config=exact)
    return models.Model.create_model(adapter)


def test_the_wrapper_computes_what_the_artifact_does(model: Model, tmp_path: Path) -> None:
    """On a picture of the model's size, in BGR, as OpenCV reads it."""
    way = preset("imagenet", TINY.image_size)
    package = replace(slide_deploy.with_preprocessing(model, way), labels=LABELS)
    artifact = exported(package, tmp_path)
    found = wrapper(artifact)
    assert type(found).__name__ == "ClassificationModel"
    assert not found.nchw_layout
    assert found.params.labels == ["cat", "a_dog", "Köter"]
    assert found.params.resize_type == "crop"
    rgb = np.random.default_rng(2).integers(0, 256, (*TINY.image_size, 3), np.uint8)
    feeds = {"right": {"image": rgb[None]}, "swapped": {"image": rgb[None, ..., ::-1].copy()}}
    outputs = slide_deploy.run_artifact(artifact, feeds).outputs
    scores = np.exp({name: own["logits"][0] for name, own in outputs.items()}["right"])
    (best,) = found(rgb[..., ::-1].copy()).top_labels
    assert best.id == scores.argmax()
    assert best.name == found.params.labels[best.id]
    np.testing.assert_allclose(best.confidence, scores.max() / scores.sum(), rtol=1e-4)
    swapped = np.exp(outputs["swapped"]["logits"][0])
    assert not np.isclose(best.confidence, swapped.max() / swapped.sum(), rtol=1e-2)


@pytest.mark.slow
def test_a_model_that_takes_a_normalised_tensor_is_none_of_its_kinds(
    model: Model, tmp_path: Path
) -> None:
    """The wrapper would pass it pixels."""
    artifact = exported(replace(model, labels=LABELS), tmp_path)
    (description,) = artifact.glob("*.xml")
    assert "model_info" not in description.read_text(encoding="utf-8")
    with pytest.raises(Exception, match="no model with name"):
        wrapper(artifact)
