"""The pooled gate, and floors that a lucky rounding cannot lower."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn

from slide_deploy.parity.compare import pooled_ratios
from slide_deploy.parity.expectation import Expectation, Noise
from slide_deploy.parity.probes import Probe
from slide_deploy.reference import expectations
from slide_deploy.types import TensorSpec

Outputs = Mapping[str, Mapping[str, np.ndarray]]


def _expectation(probe: str, reference: np.ndarray, rms: float) -> Expectation:
    return Expectation(probe, "", {}, {"y": reference}, {"y": Noise(2 * rms, rms)})


def _outputs(**values: np.ndarray) -> Outputs:
    return {probe: {"y": value.astype(np.float32)} for probe, value in values.items()}


def test_pooled_ratio_is_error_over_noise_of_all_probes_together() -> None:
    zeros = np.zeros((1, 4))
    expected = (_expectation("a", zeros, 1e-6), _expectation("b", zeros, 3e-6))
    ratios = pooled_ratios(expected, _outputs(a=zeros + 2e-6, b=zeros + 6e-6))
    assert ratios == {"y": pytest.approx(2.0, rel=1e-5)}


def test_an_error_below_each_probes_gate_stands_out_over_all() -> None:
    zeros = np.zeros((1, 10))
    expected = tuple(_expectation(str(index), zeros, 1e-6) for index in range(9))
    outputs = _outputs(**{e.probe: zeros + 4e-6 for e in expected})
    assert pooled_ratios(expected, outputs)["y"] > 3


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_never_within_the_noise(bad: float) -> None:
    expected = (_expectation("a", np.zeros((1, 2)), 1e-6),)
    assert pooled_ratios(expected, _outputs(a=np.array([[bad, 0.0]])))["y"] == np.inf


def test_outputs_of_another_shape_have_no_ratio() -> None:
    expected = (_expectation("a", np.zeros((1, 2)), 1e-6),)
    assert pooled_ratios(expected, _outputs(a=np.zeros((1, 3)))) == {}
    assert pooled_ratios(expected, {"a": {}}) == {}


def test_a_lucky_rounding_does_not_lower_the_floor_of_a_single_output() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 1)).eval()
    rng = np.random.default_rng(0)
    probes = tuple(
        Probe(str(index), "", {"x": rng.standard_normal((1, 64)).astype(np.float32)})
        for index in range(40)
    )
    found = expectations(model, (TensorSpec("y", (1, 1)),), probes)
    floors = [e.noise["y"].floor for e in found]
    typical = float(np.median([e.noise["y"].rms for e in found]))
    assert min(floors) >= typical
