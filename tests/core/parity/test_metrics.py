"""Error measures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from slide_deploy.parity.metrics import max_abs_error, noise_floor, rounded_snr_db, snr_db

vectors = arrays(np.float64, 5, elements=st.floats(-1e3, 1e3, width=32))


@given(reference=vectors)
def test_what_is_equal_has_no_error(reference: np.ndarray) -> None:
    assert max_abs_error(reference.astype(np.float32), reference) == 0.0
    assert snr_db(reference.astype(np.float32), reference) == math.inf


@given(output=vectors, reference=vectors)
def test_the_error_is_the_largest_difference(output: np.ndarray, reference: np.ndarray) -> None:
    expected = max(abs(float(a) - float(b)) for a, b in zip(output, reference, strict=True))
    assert max_abs_error(output, reference) == expected


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_infinitely_wrong(bad: float) -> None:
    output, reference = np.array([1.0, bad]), np.ones(2)
    assert max_abs_error(output, reference) == math.inf
    assert snr_db(output, reference) == -math.inf


@pytest.mark.parametrize(("share", "decibels"), [(0.1, 20.0), (1.0, 0.0), (1e-3, 60.0)])
def test_signal_to_noise_in_decibels(share: float, decibels: float) -> None:
    reference = np.array([3.0, -4.0])
    assert snr_db(reference * (1 + share), reference) == pytest.approx(decibels, abs=1e-6)


def test_a_signal_of_zeros_has_a_ratio_too() -> None:
    assert snr_db(np.ones(2), np.zeros(2)) < -100


@given(reference=vectors, noise=st.floats(0, 1))
def test_the_floor_is_the_rounding_that_was_seen(reference: np.ndarray, noise: float) -> None:
    found = noise_floor(reference + noise, reference)
    assert found >= max_abs_error(reference + noise, reference)


@given(reference=vectors)
def test_the_floor_is_never_below_one_rounding(reference: np.ndarray) -> None:
    found = noise_floor(reference, reference)
    assert found >= np.finfo(np.float32).eps * np.abs(reference).max()
    assert found > 0


def test_a_type_that_rounds_outputs_leaves_a_ratio_of_its_own() -> None:
    reference = np.random.default_rng(0).uniform(1, 2, 100_000)
    rounded = reference.astype(np.float16).astype(np.float64)
    bound = rounded_snr_db(reference, 2.0**-10)
    assert bound == pytest.approx(snr_db(rounded, reference), abs=7)
    assert bound < snr_db(rounded, reference)
    assert noise_floor(reference, reference, 2.0**-10) == pytest.approx(2.0**-9, rel=0.01)
