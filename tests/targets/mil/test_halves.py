"""float16 stored as float32 is rounded as in numpy, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from slide_deploy.validators._mil.halves import CHUNK, Half, rounded

HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
FINITE = np.sort(HALVES[np.isfinite(HALVES)].astype(np.float32))


def as_numpy(x: np.ndarray) -> None:
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16)
    found = Half(rounded(x)).data
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))


@pytest.mark.parametrize("step", [-1, 0, 1])
def test_every_half_and_every_middle_between_two(step: int) -> None:
    """`step` numbers of float32 beside them too: where rounding turns."""
    middles = (FINITE[1:] + FINITE[:-1]) / 2
    for x in (FINITE, middles):
        as_numpy(np.nextafter(x, np.float32(np.sign(step) * np.inf)) if step else x)


@pytest.mark.parametrize("largest", [3e4, 1.0, 1e-4, 1e-7, 1e-30])
@pytest.mark.parametrize("sign", [1, -1])
def test_numbers_of_one_size_and_sign(largest: float, sign: int) -> None:
    """More than are rounded at once."""
    x = np.random.default_rng(0).uniform(0, largest, CHUNK + 99).astype(np.float32)
    as_numpy(sign * x)
    as_numpy(np.append(x, np.float32(-0.0)))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 65519.996, 65520, -1e9, -0.0, 1e-40])
def test_ends_of_the_range(value: float) -> None:
    as_numpy(np.array([value, 1.0, -2.5], np.float32))


def test_any_layout() -> None:
    x = np.random.default_rng(0).standard_normal((5, 6, 7)).astype(np.float32)
    for view in (x, x.T, x[::2, ::-1], x[:0], x[0, 0, 0]):
        as_numpy(np.asarray(view))
