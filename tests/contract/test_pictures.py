"""Artifacts that take pictures: the contract of every target."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import slide_deploy
from slide_deploy import Model, Options, Verdict, registry
from slide_deploy.artifacts import prepare
from slide_deploy.capture import Normalised
from slide_deploy.packaging.preprocessing import ColourOrder, preset
from tests.tiny import TINY

TARGETS = registry.float_targets()
LABELS = tuple(f"class {number}" for number in range(TINY.num_classes))
# Three deviations and means that differ, in the order that is not the file's.
WAY = replace(
    preset("imagenet", TINY.image_size),
    colour_order=ColourOrder.BGR,
    mean=(0.2, 0.45, 0.7),
    std=(0.2, 0.25, 0.4),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, make_model, training_config) -> Model:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pth"
    content = {"model": make_model().state_dict(), "config": training_config(TINY)}
    torch.save(content, path)
    loaded = slide_deploy.with_preprocessing(slide_deploy.load(path), WAY)
    return replace(loaded, labels=LABELS)


@pytest.mark.parametrize(
    "target",
    [pytest.param(t, marks=() if t in ("onnx", "coreml") else pytest.mark.slow) for t in TARGETS],
)
def test_a_picture_goes_in_and_what_is_in_the_file_is_recorded(model, tmp_path, target):
    report = slide_deploy.export_and_verify(model, target, tmp_path, seed=1)
    (check,) = report.checks
    assert check.verdict is Verdict.PASS, check.problems
    (record,) = slide_deploy.verify_golden(tmp_path).checks
    assert record.verdict is Verdict.PASS, record.problems
    artifact = tmp_path / check.path
    made = slide_deploy.run_artifact(artifact, {})
    assert [(s.shape, s.dtype) for s in made.inputs] == [((1, *TINY.image_size, 3), "uint8")]
    assert made.metadata["labels"].startswith('["class 0", "class 1"')
    # Without a manifest, the artifact's own word on its preprocessing counts for nothing.
    (tmp_path / "manifest.json").unlink()
    (alone,) = slide_deploy.verify(artifact, replace(model, preprocessing=WAY)).checks
    assert "input image is uint8" in alone.problems[0]


RIGHT = prepare.pixels_of(WAY)
UNSCALED = tuple(1 / std for std in WAY.std[::-1])


class Swapped(Normalised):
    def forward(self, picture):
        return super().forward(picture.flip(-1))


class RowsAsPlanes(Normalised):
    """The memory of (B, H, W, 3) read as (B, 3, H, W)."""

    def forward(self, picture):
        batch, height, width, channels = picture.shape
        planes = picture.reshape(batch, channels, height, width)
        return super().forward(planes.permute(0, 2, 3, 1))


class AlongWidth(Normalised):
    """A scale of three values is broadcast from column to column, as Core ML's ImageType does."""

    def forward(self, picture):
        values = (picture.permute(0, 3, 1, 2).float() - self.offset)[:, [2, 1, 0]]
        columns = torch.arange(values.shape[-1]) % 3
        return self.model(values * WAY.scale / torch.tensor(WAY.std)[columns])


MISTAKES = {
    "the colour channels are swapped": Swapped,
    "rows of pixels are read as planes of colours": RowsAsPlanes,
    "the standard deviation is applied along the width": AlongWidth,
    "pixels are not scaled": replace(RIGHT, offset=WAY.mean[::-1], factor=UNSCALED),
    # Half a level in one channel is no common mistake.
    "": replace(RIGHT, offset=(RIGHT.offset[0] + 0.5, *RIGHT.offset[1:])),
}


DAILY = ("the colour channels are swapped", "")


@pytest.mark.parametrize(
    "named", [pytest.param(n, marks=() if n in DAILY else pytest.mark.slow) for n in MISTAKES]
)
def test_a_mistake_in_the_preprocessing_is_noticed_and_named(model, tmp_path, monkeypatch, named):
    change = MISTAKES[named]
    if isinstance(change, type):
        monkeypatch.setattr(prepare, "Normalised", change)
    else:
        monkeypatch.setattr(prepare, "pixels_of", lambda way: change)
    (check,) = slide_deploy.export_and_verify(model, "onnx", tmp_path, seed=1).checks
    assert check.verdict is Verdict.FAIL
    said = [problem for problem in check.problems if problem.startswith("its outputs are as if ")]
    assert said == ([f"its outputs are as if {named}"] if named else [])


@pytest.mark.slow
def test_float16_and_a_free_batch(model, tmp_path):
    options = Options(precision="float16", dynamic=True)
    report = slide_deploy.export_and_verify(model, ("onnx", "torchscript"), tmp_path, options)
    assert [check.problems for check in report.checks] == [(), ()]


def test_a_free_size_is_refused(model, tmp_path):
    with pytest.raises(slide_deploy.errors.UsageError, match="the preprocessing fixes"):
        slide_deploy.export_and_verify(model, "onnx", tmp_path, Options(dynamic_size=True))
