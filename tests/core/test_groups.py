"""Targets that are exported together, and those that are not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from slide_deploy import Options
from slide_deploy.pipeline.groups import Group, joined
from slide_deploy.types import LayerLowering

MODEL: Any = object()
LAYERS = (LayerLowering("attention", "im2col", "asked for"),)


def groups(**options: Options) -> tuple[Group, ...]:
    return joined([Group(MODEL, (target,), own) for target, own in options.items()])


def test_options_of_single_targets_are_joined() -> None:
    onnx = Options(opset=18, lowered={"onnx": LAYERS})
    coreml = Options(deployment_target="iOS17")
    (both,) = groups(onnx=onnx, coreml=coreml)
    assert both.targets == ("onnx", "coreml")
    assert both.options == replace(onnx, deployment_target="iOS17")


@pytest.mark.parametrize(
    "other", [Options("float16"), Options(batch=2), Options(lowering="slices"), Options(min_snr=30)]
)
def test_other_common_options_are_another_group(other: Options) -> None:
    found = groups(onnx=Options(), openvino=other, torchscript=Options())
    assert [group.targets for group in found] == [("onnx", "torchscript"), ("openvino",)]


@pytest.mark.parametrize("value", [None, "asymmetric"])
def test_an_option_that_two_targets_have_must_be_the_same(value: str | None) -> None:
    """An option of one of them must not reach the other."""
    own = {"activations": value} if value else {}
    one, other = Options("w8a8", target_options={"activations": "symmetric"}), Options("w8a8")
    found = groups(onnx=one, openvino=replace(other, target_options=own))
    assert [group.targets for group in found] == [("onnx",), ("openvino",)]
    found = groups(onnx=replace(other, target_options=own), openvino=one)
    assert [group.targets for group in found] == [("onnx",), ("openvino",)]
    assert len(groups(onnx=one, openvino=one)) == 1


def test_other_models_are_other_groups() -> None:
    other: Any = object()
    found = joined([Group(MODEL, ("onnx",), Options()), Group(other, ("openvino",), Options())])
    assert len(found) == 2
