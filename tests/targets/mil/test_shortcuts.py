"""What has a faster way in special cases gives the same there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb

Run = Callable[..., list[np.ndarray]]

RANDOM = np.random.default_rng(0)


def uniform(*shape: int) -> np.ndarray:
    return RANDOM.uniform(-1, 1, shape).astype(np.float32)


def kernel_of_a_shift(channels: int, row: int, column: int, value: float = 1) -> np.ndarray:
    kernel = np.zeros((channels, 1, 3, 3), np.float32)
    kernel[:, :, row, column] = value
    return kernel


@pytest.mark.parametrize(
    "kernel",
    [
        kernel_of_a_shift(4, 0, 2),
        kernel_of_a_shift(4, 1, 1),
        kernel_of_a_shift(4, 2, 0, value=3),
        np.concatenate([kernel_of_a_shift(2, 0, 0), kernel_of_a_shift(2, 2, 2)]),
        kernel_of_a_shift(4, 1, 1) + kernel_of_a_shift(4, 0, 1),
    ],
)
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_convolutions_that_shift(run: Run, kernel: np.ndarray, stride: int, dilation: int) -> None:
    x = uniform(2, 4, 9, 8)
    (found,) = run(
        lambda x: mb.conv(
            x=x,
            weight=kernel,
            groups=4,
            pad_type="custom",
            pad=[1, 0, 2, 1],
            strides=[stride] * 2,
            dilations=[dilation] * 2,
        ),
        [x],
    )
    padded = np.pad(x, [(0, 0), (0, 0), (1, 0), (2, 1)])
    expected = torch.nn.functional.conv2d(
        torch.from_numpy(padded), torch.from_numpy(kernel), None, stride, 0, dilation, 4
    )
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_convolution_that_shifts_moves_numbers_as_they_are(run: Run, dtype: type) -> None:
    x = (uniform(1, 2, 5, 4) * 6e4).astype(dtype)
    weight = kernel_of_a_shift(2, 0, 1).astype(dtype)
    (found,) = run(lambda x: mb.conv(x=x, weight=weight, groups=2), [x], 6)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, x[:, :, :3, 1:3])


def test_infinity_times_zero_is_not_lost(run: Run) -> None:
    x = np.ones((1, 2, 3, 3), np.float32)
    x[0, 1, 2, 2] = np.inf
    (found,) = run(lambda x: mb.conv(x=x, weight=kernel_of_a_shift(2, 0, 0), groups=2), [x])
    np.testing.assert_array_equal(found.reshape(-1), [1, np.nan])


@pytest.mark.parametrize("groups", [1, 3])
def test_one_by_one_kernels_of_an_input_with_its_channels_last(run: Run, groups: int) -> None:
    x, weight = uniform(2, 5, 4, 6), uniform(9, 6 // groups, 1, 1)

    def build(x: Any) -> Any:
        return mb.conv(x=mb.transpose(x=x, perm=[0, 3, 1, 2]), weight=weight, groups=groups)

    (found,) = run(build, [x])
    moved = torch.from_numpy(x).permute(0, 3, 1, 2)
    expected = torch.nn.functional.conv2d(moved, torch.from_numpy(weight), groups=groups)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("size", [1, 3, 64, 65])
def test_softmax_of_short_and_long_rows(run: Run, axis: int, size: int) -> None:
    shape = [3, 4, 5]
    shape[axis] = size
    x = 9 * uniform(*shape)
    (found,) = run(lambda x: mb.softmax(x=x, axis=axis), [x])
    expected = torch.from_numpy(x).double().softmax(axis)
    np.testing.assert_allclose(found, expected.numpy(), rtol=3e-6)


def test_padding_with_a_constant(run: Run) -> None:
    x = uniform(2, 3, 4)
    (found,) = run(lambda x: mb.pad(x=x, pad=[1, 0, 0, 2, 3, 1], constant_val=0.5), [x])
    expected = np.pad(x, [(1, 0), (0, 2), (3, 1)], constant_values=np.float32(0.5))
    np.testing.assert_array_equal(found, expected)
