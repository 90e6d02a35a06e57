"""Convolution, reshaping and slicing, compared with PyTorch and numpy by hypothesis."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from slide_deploy.validators._mil.ops import OPERATIONS, call

# No files here: the same functions are reached through packages in test_operations.
SETTINGS = settings(max_examples=150, deadline=None, derandomize=True)


def compute(name: str, opset: int = 5, **arguments: Any) -> Any:
    named = {key: (np.asarray(value),) for key, value in arguments.items()}
    return call(OPERATIONS[name], named, opset)[0]


def normal(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@st.composite
def convolutions(draw: st.DrawFn) -> dict[str, Any]:
    rank, groups = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    sizes = st.lists(st.integers(1, 3), min_size=rank, max_size=rank)
    kernel, strides, dilations = draw(sizes), draw(sizes), draw(sizes)
    pad = draw(st.lists(st.integers(0, 2), min_size=2 * rank, max_size=2 * rank))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    spatial = [r + draw(st.integers(0, 4)) for r in reach]
    inputs, outputs = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    seed = draw(st.integers(0, 99))
    return {
        "x": normal((draw(st.integers(1, 2)), inputs, *spatial), seed),
        "weight": normal((outputs, inputs // groups, *kernel), seed + 1),
        "bias": normal((outputs,), seed + 2),
        "strides": strides,
        "dilations": dilations,
        "pad": pad,
        "groups": groups,
    }


@SETTINGS
@given(convolutions())
def test_convolution(case: dict[str, Any]) -> None:
    x, weight, bias = (torch.from_numpy(case[key]) for key in ("x", "weight", "bias"))
    rank = x.ndim - 2
    before_after = [p for i in reversed(range(rank)) for p in case["pad"][2 * i : 2 * i + 2]]
    function = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    expected = function(
        F.pad(x, before_after), weight, bias, case["strides"], 0, case["dilations"], case["groups"]
    )
    found = compute("conv", pad_type="custom", **case)
    assert found.shape == tuple(expected.shape)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)


@SETTINGS
@given(convolutions())
def test_transposed_convolution_is_the_adjoint(case: dict[str, Any]) -> None:
    """<conv(x), y> = <x, conv_transpose(y)>: the one checks the other."""
    arguments = {key: case[key] for key in ("weight", "strides", "dilations", "groups")}
    y_shape = compute("conv", x=case["x"], **arguments).shape
    y = normal(y_shape, 5)
    spread = compute("conv_transpose", x=y, **arguments)
    # The input's last rows that no window reached are cut off.
    x = case["x"][(..., *(slice(n) for n in spread.shape[2:]))]
    left = np.vdot(compute("conv", x=x, **arguments).astype(np.float64), y)
    assert math.isclose(left, np.vdot(x, spread.astype(np.float64)), rel_tol=1e-4, abs_tol=1e-3)


@SETTINGS
@given(st.data())
def test_reshape(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    order = data.draw(st.permutations(shape))
    target = list(order)
    if data.draw(st.booleans()):
        target[data.draw(st.integers(0, len(target) - 1))] = -1
    x = normal(shape, 0)
    expected = torch.from_numpy(x).reshape(target).numpy()
    np.testing.assert_array_equal(compute("reshape", x=x, shape=target), expected)


@SETTINGS
@given(st.data())
def test_slice_by_index(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    rank = len(shape)

    def vector(values: st.SearchStrategy[Any]) -> list[Any]:
        return data.draw(st.lists(values, min_size=rank, max_size=rank))

    end, stride = vector(st.integers(-6, 6)), vector(st.sampled_from([1, 2, 3, -1, -2]))
    begin = [data.draw(st.integers(-n, n - 1)) for n in shape]
    begin_mask, end_mask, squeeze_mask = (vector(st.booleans()) for _ in range(3))
    x = normal(shape, 0)
    index = tuple(
        (0 if no_begin else b) if one else slice(None if no_begin else b, None if no_end else e, s)
        for b, e, s, no_begin, no_end, one in zip(
            begin, end, stride, begin_mask, end_mask, squeeze_mask, strict=True
        )
    )
    found = compute(
        "slice_by_index",
        x=x,
        begin=begin,
        end=end,
        stride=stride,
        begin_mask=begin_mask,
        end_mask=end_mask,
        squeeze_mask=squeeze_mask,
    )
    np.testing.assert_array_equal(found, x[index])
