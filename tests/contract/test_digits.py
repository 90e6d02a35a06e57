"""Exported models of every family classify digits as in PyTorch."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest

import slide_deploy
from slide_deploy import registry
from slide_deploy.models.families import family_named
from slide_deploy.reference.run import run_module
from slide_deploy.types import Options, Verdict
from slide_deploy.verification.runner import read_artifact

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
FAMILIES = ("slide-swin", "slide-pvt", "slide-pvt-v2", "slide-cswin", "slide-nat")
COUNT = 50
MEGABYTE = 1_000_000


@cache
def held_out() -> tuple[np.ndarray, np.ndarray]:
    sys.path.insert(0, str(DIGITS))
    try:
        from data import held_out_split
    finally:
        sys.path.remove(str(DIGITS))
    return held_out_split()


def trained(family: str) -> Path:
    return DIGITS / f"{family.replace('-', '_')}_digits.pth"


@pytest.mark.parametrize("family", FAMILIES)
def test_trained_models_are_recognised_as_they_are_and_know_digits(family: str) -> None:
    model = slide_deploy.load(trained(family))
    images, labels = held_out()
    found = run_module(model.module, model.outputs, {"image": images})["logits"].argmax(1)
    assert model.family == family_named(family).name
    assert model.source.weights == "ema"
    assert (found == labels).mean() >= 0.95


@pytest.mark.parametrize("family", FAMILIES[1:])
def test_files_are_small(family: str) -> None:
    assert trained(family).stat().st_size < MEGABYTE


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_artifact_counts_digits_as_pytorch_does(family: str, tmp_path: Path) -> None:
    model = slide_deploy.load(trained(family))
    images = held_out()[0][:COUNT]
    expected = run_module(model.module, model.outputs, {"image": images})["logits"].argmax(1)
    report = slide_deploy.export_and_verify(
        model, registry.float_targets(), tmp_path, progress=lambda _: None
    )
    assert report.verdict is Verdict.PASS, report.checks
    feeds = {str(index): {"image": image[None]} for index, image in enumerate(images)}
    for check in report.checks:
        outputs = read_artifact(check.target, tmp_path / check.path, feeds).outputs
        found = [int(outputs[name]["logits"].argmax()) for name in feeds]
        assert np.array_equal(found, expected), check.target


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_opset_17_serves_every_family(family: str, tmp_path: Path) -> None:
    model = slide_deploy.load(trained(family))
    report = slide_deploy.export_and_verify(model, "onnx", tmp_path, Options(opset=17))
    assert report.verdict == "pass", report.checks[0].problems
    proto = onnx.load(next(tmp_path.glob("*.onnx")))
    assert [entry.version for entry in proto.opset_import if not entry.domain] == [17]
    onnx.checker.check_model(proto, full_check=True)
