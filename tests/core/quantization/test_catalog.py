"""Precision schemes are found by name and alias, and have gates."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from slide_deploy.errors import UnknownName
from slide_deploy.parity.gates import GateKind
from slide_deploy.quantization.catalog import scheme_named, scheme_of, schemes
from slide_deploy.types import Precision


@pytest.mark.parametrize(
    ("name", "found"),
    [
        *((name, "float32") for name in ("float32", "fp32", Precision.FLOAT32, "FP32")),
        *((name, "float16") for name in ("float16", "fp16", "half", Precision.FLOAT16)),
    ],
)
def test_names_and_aliases_lead_to_the_scheme(name: str, found: str) -> None:
    assert scheme_named(name).name == found


def test_the_public_names_are_schemes() -> None:
    assert {precision.value for precision in Precision} == {scheme.name for scheme in schemes()}


@pytest.mark.parametrize("find", [scheme_named, lambda name: scheme_of(name, name)])
def test_an_unknown_name_is_answered_with_the_nearest(find) -> None:
    with pytest.raises(UnknownName) as caught:
        find("flaot16")
    assert caught.value.hint == "did you mean 'float16'?"


def test_no_two_schemes_share_a_name() -> None:
    names = [n for s in schemes() for n in {s.name, s.short_name, *s.aliases}]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("scheme", schemes(), ids=lambda scheme: scheme.short_name)
def test_weights_lead_back_to_the_scheme(scheme) -> None:
    assert scheme_of(scheme.weights, scheme.activations) is scheme


def test_the_type_of_the_arithmetic_decides_only_between_schemes_with_equal_weights() -> None:
    assert scheme_of("float16", "bfloat16").name == "float16"
    assert scheme_of("int8", "uint16").name == "w8a16"


def test_the_limits_are_those_that_were_promised() -> None:
    cost = {GateKind.RELATIVE_ERROR: 50.0, GateKind.DISAGREEMENT: 10.0}
    limits = {s.name: {gate.kind: gate.limit for gate in s.gates} for s in schemes()}
    assert limits == {
        "float32": {
            GateKind.MAX_ERROR: 10.0,
            GateKind.POOLED_ERROR: 5.0,
            GateKind.SYSTEMATIC_ERROR: 1.0,
        },
        "float16": {
            GateKind.SNR_LOSS: 10.0,
            GateKind.MAX_ERROR: 4.0,
            GateKind.POOLED_ERROR: 2.0,
            GateKind.SYSTEMATIC_ERROR: 1.5,
        },
        **dict.fromkeys(("w8", "w8a16", "w8a8"), cost),
    }


def test_rendering_leaves_the_model_as_it_is() -> None:
    model = torch.nn.Linear(2, 2)
    render = scheme_named("half").render
    assert render(model).weight.dtype is torch.float16
    assert model.weight.dtype is torch.float32
    assert scheme_named("float32").render is None


def test_a_scheme_that_could_not_fail_a_probe_is_refused() -> None:
    pooled = scheme_named("float32").gates[1:]
    with pytest.raises(ValueError, match="no gate that judges each output"):
        dataclasses.replace(scheme_named("float32"), gates=pooled)
