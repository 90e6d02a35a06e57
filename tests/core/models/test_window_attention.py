"""Window attention against its definition: tokens of one window of a shifted grid."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from slide_deploy.models.window_attention import (
    WindowAttention,
    cyclic_shift,
    partition,
    shift_mask,
    unpartition,
)

Scramble = Callable[[nn.Module], nn.Module]
sizes = st.integers(1, 3)


def naive(module: WindowAttention, x: np.ndarray, shift: int) -> np.ndarray:
    """Every pixel attends to the pixels in its own window of a grid that starts at `shift`.

    No roll and no mask: a cyclic shift with a mask is a way to compute just this.
    """
    weights = {name: value.detach().double().numpy() for name, value in module.named_parameters()}
    batch, height, width, dim = x.shape
    heads, window = module.heads, module.window
    depth = dim // heads
    out = np.zeros_like(x)
    for b in range(batch):
        tokens = x[b] @ weights["qkv.weight"].T + weights.get("qkv.bias", 0.0)
        parts = tokens.reshape(height, width, 3, heads, depth)
        for row in range(height):
            for column in range(width):
                mates = [
                    (r, c)
                    for r in range(height)
                    for c in range(width)
                    if (r - shift) // window == (row - shift) // window
                    and (c - shift) // window == (column - shift) // window
                ]
                for head in range(heads):
                    q = parts[row, column, 0, head] * module.scale
                    logits = np.array(
                        [
                            q @ parts[r, c, 1, head]
                            + weights["relative_position_bias_table"][
                                (row - r + window - 1) * (2 * window - 1)
                                + (column - c + window - 1),
                                head,
                            ]
                            for r, c in mates
                        ]
                    )
                    powers = np.exp(logits - logits.max())
                    values = np.array([parts[r, c, 2, head] for r, c in mates])
                    own = slice(head * depth, (head + 1) * depth)
                    out[b, row, column, own] = powers @ values / powers.sum()
    return out @ weights["proj.weight"].T + weights["proj.bias"]


@given(
    window=st.integers(1, 4),
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
    heads=st.integers(1, 3),
    qkv_bias=st.booleans(),
    qk_scale=st.sampled_from([None, 0.7]),
    shifted=st.booleans(),
)
def test_equals_attention_within_windows_of_a_shifted_grid(
    scrambled: Scramble,
    window: int,
    rows: int,
    columns: int,
    heads: int,
    qkv_bias: bool,
    qk_scale: float | None,
    shifted: bool,
) -> None:
    height, width, dim = window * rows, window * columns, 2 * heads
    shift = window // 2 if shifted and rows > 1 and columns > 1 else 0
    module = scrambled(
        WindowAttention(
            dim,
            heads,
            window,
            (height, width),
            shift,
            qkv_bias=qkv_bias,
            qk_scale=qk_scale,
        ).double()
    )
    x = torch.randn(
        2, height, width, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    )
    mask = shift_mask(height, width, window, shift).double() if shift else None

    found = module(x, mask).detach().numpy()

    expected = naive(module, x.numpy(), shift)
    assert np.abs(found - expected).max() <= 1e-12 * max(1.0, np.abs(expected).max())


@given(batch=sizes, window=st.integers(1, 4), rows=sizes, columns=sizes, channels=sizes)
def test_unpartition_undoes_partition(
    batch: int, window: int, rows: int, columns: int, channels: int
) -> None:
    shape = (batch, rows * window, columns * window, channels)
    x = torch.arange(float(np.prod(shape))).reshape(shape)
    assert torch.equal(unpartition(partition(x, window), window, *shape[1:3]), x)


@given(batch=sizes, window=st.integers(1, 4), rows=sizes, columns=sizes)
def test_partition_lists_windows_row_by_row(
    batch: int, window: int, rows: int, columns: int
) -> None:
    x = torch.arange(float(batch * rows * columns * window**2))
    x = x.reshape(batch, rows * window, columns * window, 1)
    expected = [
        x[b, r * window : (r + 1) * window, c * window : (c + 1) * window].reshape(-1, 1)
        for b in range(batch)
        for r in range(rows)
        for c in range(columns)
    ]
    assert torch.equal(partition(x, window), torch.stack(expected))


@given(height=st.integers(2, 6), width=st.integers(2, 6), shift=st.integers(-1, 1))
def test_cyclic_shift_is_a_roll(height: int, width: int, shift: int) -> None:
    x = torch.arange(float(height * width)).reshape(1, height, width, 1)
    if shift:
        assert torch.equal(cyclic_shift(x, shift), torch.roll(x, (shift, shift), (1, 2)))


@pytest.mark.parametrize("shift", [0, 1])
def test_no_tensor_of_the_forward_pass_is_above_rank_4(shift: int) -> None:
    highest = 0

    class Ranks(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal highest
            result = func(*args, **(kwargs or {}))
            for value in result if isinstance(result, (tuple, list)) else (result,):
                highest = max(highest, getattr(value, "ndim", 0))
            return result

    module = WindowAttention(4, 2, 2, (4, 6), shift)
    mask = shift_mask(4, 6, 2, shift) if shift else None
    with torch.no_grad(), Ranks():
        module(torch.randn(2, 4, 6, 4), mask)
    assert 0 < highest <= 4
