"""Core ML packages that the validator refuses, independent of their outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
from coremltools.proto import FeatureTypes_pb2, Model_pb2

import slide_deploy
from slide_deploy.errors import NotSupported
from slide_deploy.validators import coreml

DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "slide_swin_digits.pth"
MODEL = Path("Data", "com.apple.CoreML", "model.mlmodel")


def test_an_input_that_a_device_would_feed_with_pixels_is_refused(tmp_path: Path) -> None:
    model = slide_deploy.load(DIGITS)
    slide_deploy.export(model, "coreml", tmp_path)
    package = tmp_path / "slide_swin_digits.mlpackage"
    spec = Model_pb2.Model.FromString((package / MODEL).read_bytes())
    image = spec.description.input[0].type.imageType
    image.width, image.height = 32, 32
    image.colorSpace = FeatureTypes_pb2.ImageFeatureType.RGB
    (package / MODEL).write_bytes(spec.SerializeToString())
    (check,) = slide_deploy.verify(package, model).checks
    assert check.verdict == "fail"
    assert any("not an image of uint8" in problem for problem in check.problems), check.problems


def test_a_result_that_rests_on_an_undocumented_rule_is_not_run() -> None:
    with pytest.raises(NotSupported, match="does not document: scatter"):
        coreml._refuse("scatter of one place twice")
