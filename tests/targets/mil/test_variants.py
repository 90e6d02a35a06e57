"""Other float16 arithmetic: each variant changes what it names, in float16 alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slide_deploy.validators._mil import VARIANTS, evaluate, read_package
from tests.targets.mil.conftest import mb

RNG = np.random.default_rng(0)
SUMS, SOFTMAX, GELU, SOFTPLUS = VARIANTS
FLAT = RNG.standard_normal((3, 200)).astype(np.float32)
MAPS = RNG.standard_normal((1, 40, 5, 6)).astype(np.float32)


def weights(*shape: int, like: Any) -> np.ndarray:
    dtype = np.float16 if "16" in like.dtype.__name__ else np.float32
    return np.random.default_rng(1).standard_normal(shape).astype(dtype)


BUILDS = {
    "linear": (SUMS, FLAT, lambda x: mb.linear(x=x, weight=weights(4, 200, like=x))),
    "matmul": (SUMS, FLAT, lambda x: mb.matmul(x=x, y=weights(4, 200, like=x), transpose_y=True)),
    "conv": (SUMS, MAPS, lambda x: mb.conv(x=x, weight=weights(8, 40, 3, 3, like=x))),
    "softmax": (SOFTMAX, FLAT, lambda x: mb.softmax(x=x, axis=-1)),
    "gelu": (GELU, FLAT, lambda x: mb.gelu(x=x, mode="EXACT")),
    "softplus": (SOFTPLUS, FLAT * 10, lambda x: mb.softplus(x=x)),
}


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("kind", BUILDS)
def test_a_variant_changes_what_it_names(write: Callable[..., Path], kind: str, dtype: Any) -> None:
    own, x, build = BUILDS[kind]
    x = x.astype(dtype)
    program = read_package(write(build, [x], 7))
    (feature,) = program.inputs
    (described,) = evaluate(program, {feature.name: x}).values()
    for variant in VARIANTS:
        (found,) = evaluate(program, {feature.name: x}, variant=variant).values()
        changed = not np.array_equal(found, described)
        assert changed == (variant is own and dtype == np.float16), variant.name
        if changed and kind != "softplus":
            bound = 1e-2 * np.abs(described).max()
            np.testing.assert_allclose(found, described, rtol=0, atol=bound)


def test_softplus_falls_to_zero_where_its_exponential_overflows(
    write: Callable[..., Path],
) -> None:
    x = np.array([10, 10.39, 10.41, 30], np.float16)
    program = read_package(write(lambda x: mb.softplus(x=x), [x], 7))
    (found,) = evaluate(program, {"x": x}, variant=SOFTPLUS).values()
    np.testing.assert_array_equal(found == 0, [False, False, True, True])
