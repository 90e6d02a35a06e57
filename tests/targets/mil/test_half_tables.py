"""Large float16 tensors get the results of the function, from a table of all float16 numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb

from slide_deploy.validators._mil.half_tables import WORTH_A_TABLE, looked_up
from slide_deploy.validators._mil.halves import Half, rounded

Run = Callable[..., list[np.ndarray]]

HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16)


@pytest.mark.parametrize("function", [np.tanh, np.exp, np.sqrt, np.reciprocal])
def test_every_number_has_its_result(function: Callable[..., Any]) -> None:
    def named(x: np.ndarray) -> Any:
        return function(x)

    x = HALVES.astype(np.float32).reshape(256, 256)
    with np.errstate(all="ignore"):
        expected, found = rounded(function(x)), looked_up(named, x, {})
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))
    np.testing.assert_array_equal(Half(looked_up(named, x.T, {})).data, Half(expected.T).data)


def test_each_option_has_a_table_of_its_own(run: Run) -> None:
    x = np.random.default_rng(0).uniform(-4, 4, (3, WORTH_A_TABLE)).astype(np.float16)
    for alpha in (1.0, 0.5):

        def build(x: Any, *, alpha: float = alpha) -> Any:
            return mb.elu(x=x, alpha=np.float16(alpha))

        (found,), (few,) = run(build, [x], 6), run(build, [x[:, :99]], 6)
        wide = x.astype(np.float32)
        with np.errstate(over="ignore"):
            expected = np.where(wide > 0, wide, alpha * np.expm1(wide)).astype(np.float16)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(few, expected[:, :99])


@pytest.mark.parametrize("function", [mb.gelu, mb.sigmoid, mb.softplus, mb.erf])
def test_small_and_large_tensors_agree(run: Run, function: Callable[..., Any]) -> None:
    x = np.random.default_rng(0).standard_normal((2, WORTH_A_TABLE)).astype(np.float16)
    (large,) = run(lambda x: function(x=x), [x], 6)
    (small,) = run(lambda x: function(x=x), [x[:, :500]], 6)
    np.testing.assert_array_equal(large[:, :500], small)
