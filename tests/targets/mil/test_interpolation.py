"""Functions from tables are those of scipy in float64, within three units in the last place."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from slide_deploy.validators._mil.interpolation import Function, interpolated

RANDOM = np.random.default_rng(0)


def gelu(x: np.ndarray) -> np.ndarray:
    return x * special.ndtr(x)


def units_off(function: Function, x: np.ndarray) -> np.ndarray:
    """The error in units in the last place; those of the smallest normal number below it."""
    exact = function(x.astype(np.float64))
    unit = np.spacing(np.maximum(np.abs(exact), np.finfo(np.float32).tiny).astype(np.float32))
    return np.abs(interpolated(function, x) - exact) / unit


@pytest.mark.parametrize("function", [gelu, special.erf])
@pytest.mark.parametrize(
    "x",
    [
        np.linspace(-15, 15, 1_000_001),
        RANDOM.standard_normal(200_000),
        RANDOM.uniform(-0.003, 0.003, 200_000),  # the first points of the table
        np.logspace(-45, 1, 100_000),
        -np.logspace(-45, 1, 100_000),
        np.nextafter(np.float32([12, -12, 12, -12]), np.float32([0, 0, 20, -20])),
        np.arange(-12 * 2048, 12 * 2048 + 1) / 2048,  # where parabolas meet, and between
    ],
)
def test_it_is_as_accurate_as_float32_is(function: Function, x: np.ndarray) -> None:
    assert units_off(function, x.astype(np.float32)).max() < 3


@pytest.mark.parametrize("function", [gelu, special.erf])
def test_zeros_keep_their_sign_and_the_ends_are_those_of_the_function(function: Function) -> None:
    for value in (0.0, -0.0, 12.0, -12.0, 40.0, -40.0, np.inf, -np.inf, np.nan, 3e38):
        x = np.array([1, value, -2], np.float32)
        with np.errstate(all="ignore"):
            expected = function(x.astype(np.float64)).astype(np.float32)[1]
            found = interpolated(function, x)[1]
        np.testing.assert_array_equal(found, expected)
        assert np.signbit(found) == np.signbit(expected)


def test_any_layout() -> None:
    x = RANDOM.standard_normal((5, 6, 7)).astype(np.float32)
    whole = interpolated(gelu, x)
    np.testing.assert_array_equal(interpolated(gelu, x.T), whole.T)
    np.testing.assert_array_equal(interpolated(gelu, x[::2, ::-1]), whole[::2, ::-1])
    assert interpolated(gelu, x[:0]).shape == (0, 6, 7)
    assert interpolated(gelu, x[0, 0, 0]).shape == ()


def test_the_function_itself_where_x_is_not_float32() -> None:
    x = RANDOM.standard_normal(9)
    np.testing.assert_array_equal(interpolated(gelu, x), gelu(x))
