"""Gates over several probes, and the minimum of noise floors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn

from slide_deploy.parity.comparison import pooled_ratios
from slide_deploy.parity.expectation import Expectation, Noise
from slide_deploy.parity.probes import Probe
from slide_deploy.parity.systematic import systematic_ratios
from slide_deploy.reference.expectations import expectations
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


COPIES = ("a", *(f"a perturbed copy {number}" for number in range(1, 5)))


def _systematic(noise: float, mistake: float, values: int = 1000) -> float:
    """The systematic ratio of rounding `noise` and a `mistake`, where PyTorch's noise is 1e-6."""
    rng = np.random.default_rng(0)
    wrong = mistake * rng.standard_normal((1, values))
    reference = np.zeros((1, values))
    expected = tuple(_expectation(probe, reference, 1e-6) for probe in (*COPIES, "b"))
    made = {e.probe: wrong + noise * rng.standard_normal((1, values)) for e in expected}
    return systematic_ratios(expected, _outputs(**made))["y"]


@pytest.mark.parametrize("values", [1, 2, 10, 1000])
@pytest.mark.parametrize("noise", [0.0, 1e-6, 2.5e-6])
def test_rounding_does_not_recur_on_perturbed_copies(noise: float, values: int) -> None:
    assert _systematic(noise, 0.0, values) < 0.5


@pytest.mark.parametrize("noise", [0.0, 1e-6, 2e-6])
def test_a_mistake_of_the_size_of_the_noise_recurs_on_perturbed_copies(noise: float) -> None:
    assert _systematic(noise, 1e-6) > 1.1


def test_without_perturbed_copies_nothing_is_systematic() -> None:
    expected = (_expectation("a", np.zeros((1, 2)), 1e-6),)
    assert systematic_ratios(expected, _outputs(a=np.zeros((1, 2)))) == {}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_no_rounding(bad: float) -> None:
    expected = tuple(_expectation(probe, np.zeros((1, 2)), 1e-6) for probe in COPIES)
    outputs = _outputs(**{probe: np.array([[bad, 0.0]]) for probe in COPIES})
    assert systematic_ratios(expected, outputs)["y"] == np.inf


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
