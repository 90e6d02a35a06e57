"""What Xcode shows of a Core ML package, read back from the written specification."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from coremltools.proto import Model_pb2
from torch import nn

from slide_deploy.artifacts.write import write_artifact
from slide_deploy.capture import Capture, Classifier, Normalised
from slide_deploy.errors import UsageError
from slide_deploy.types import Options, Pixels, TensorSpec
from slide_deploy.validators.coreml import RUNTIME

PICTURE = TensorSpec("image", (1, 4, 6, 3), "uint8")
TENSOR = TensorSpec("x", (1, 3, 4, 6))
NAMES = ("cat", "dog")
PIXELS = Pixels((10.0, 20.0, 30.0), (0.01, 0.02, 0.03), reverses=False, channels_last=False)
METADATA = {"description": "tiny, of no family", "slide_deploy": "0.1", "input": "x: 1x3x4x6"}
PREVIEW = "com.apple.coreml.model.preview.type"


def capture(*, pictured: bool, classifies: bool) -> Capture:
    torch.manual_seed(0)
    module: nn.Module = nn.Sequential(nn.Flatten(), nn.Linear(72, 2))
    outputs = (TensorSpec("logits", (1, 2)),)
    if classifies:
        module = Classifier(module, keeps_scores=True)
        outputs = (TensorSpec("probabilities", (1, 2)), *outputs)
    if pictured:
        module = Normalised(module, PIXELS)
    inputs = (PICTURE if pictured else TENSOR,)
    names = NAMES if classifies else ()
    return Capture(module.eval(), inputs, outputs, METADATA, classes=names)


def written(folder: Path, made: Capture, **options: Any) -> tuple[Any, Path]:
    record = write_artifact("coreml", "tiny", made, folder, Options(**options))
    (file,) = (folder / record.path).rglob("*.mlmodel")
    return Model_pb2.Model.FromString(file.read_bytes()).description, folder / record.path


def test_a_classifier_of_pictures(tmp_path: Path) -> None:
    given = {"author": "A. Uthor", "license": "MIT", "version": "2", "description": "Cats"}
    about = capture(pictured=True, classifies=True)
    spec, path = written(tmp_path, about, target_options=given, precision="float16")
    own = spec.metadata
    assert (own.author, own.license, own.versionString) == ("A. Uthor", "MIT", "2")
    assert own.shortDescription == "Cats"
    assert own.userDefined[PREVIEW] == "imageClassifier"
    (image,) = spec.input
    assert (image.type.imageType.width, image.type.imageType.height) == (6, 4)
    assert image.type.imageType.colorSpace == 20  # RGB
    assert "Picture in RGB, 6 pixels wide and 4 high" in image.shortDescription
    kinds = {f.name: (f.type.WhichOneof("Type"), bool(f.shortDescription)) for f in spec.output}
    assert kinds == {
        "classLabel": ("stringType", True),
        "probabilities": ("dictionaryType", True),
        "logits": ("multiArrayType", True),
    }
    assert spec.predictedFeatureName == "classLabel"
    assert spec.predictedProbabilitiesName == "probabilities"
    assert RUNTIME.open(path).metadata["labels"] == '["cat", "dog"]'


def test_defaults_of_a_model_with_scores(tmp_path: Path) -> None:
    spec, _ = written(tmp_path, capture(pictured=False, classifies=False))
    own = spec.metadata
    assert (own.author, own.license, own.versionString) == ("slide-deploy", "", "0.1")
    assert own.shortDescription == "tiny, of no family"
    assert PREVIEW not in own.userDefined
    assert [f.shortDescription for f in spec.input] == ["x: 1x3x4x6"]
    assert "softmax" in spec.output[0].shortDescription


@pytest.mark.parametrize("target", ["iOS15", "iOS17", "iOS18", "iOS26", "macOS26"])
def test_every_system_reads_its_package(tmp_path: Path, target: str) -> None:
    about = capture(pictured=True, classifies=True)
    _, path = written(tmp_path, about, deployment_target=target)
    session = RUNTIME.open(path)
    assert session.violations == ()
    pixels = torch.full((1, 4, 6, 3), 200, dtype=torch.uint8)
    expected = about.module(pixels)
    made = session.run({"image": pixels.numpy()})
    for spec, value in zip(about.outputs, expected, strict=True):
        assert made[spec.name] == pytest.approx(value.detach().numpy(), rel=1e-5)


@pytest.mark.parametrize("text", ["", "two\nlines", "x" * 2001])
def test_texts_that_xcode_cannot_show_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="is not a text that Xcode can show"):
        written(tmp_path, capture(pictured=True, classifies=True), target_options={"author": text})
