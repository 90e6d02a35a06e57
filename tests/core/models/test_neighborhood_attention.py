"""Neighbourhood attention against NATTEN's definition, query by query."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from slide_deploy.models.neighborhood_attention import AxisTiles, NeighborhoodAttention


def window_start(index: int, length: int, kernel: int) -> int:
    """NATTEN's `get_window_start` with dilation 1."""
    half = kernel // 2
    return max(index - half, 0) + (index + half >= length) * (length - index - half - 1)


def bias_start(index: int, length: int, kernel: int) -> int:
    """NATTEN's `get_pb_start` with dilation 1."""
    half = kernel // 2
    return (
        half
        + (index < half) * (half - index)
        + (index + half >= length) * (length - index - 1 - half)
    )


def naive(module: NeighborhoodAttention, x: np.ndarray, kernel: int) -> np.ndarray:
    """What NATTEN's module computes: fill up with zeros to the kernel, project, then each query
    attends to the k × k keys of its own window; cut off what was added, project."""
    weights = {name: value.detach().double().numpy() for name, value in module.named_parameters()}
    batch, height, width, dim = x.shape
    heads, depth = module.heads, dim // module.heads
    padded = np.zeros((batch, max(height, kernel), max(width, kernel), dim))
    padded[:, :height, :width] = x
    rows, columns = padded.shape[1:3]
    qkv = padded @ weights["qkv.weight"].T + weights.get("qkv.bias", 0.0)
    q, k, v = qkv.reshape(batch, rows, columns, 3, heads, depth).transpose(3, 0, 4, 1, 2, 5)
    out = np.zeros((batch, height, width, heads, depth))
    for b, h, row, column in np.ndindex(batch, heads, height, width):
        top, left = window_start(row, rows, kernel), window_start(column, columns, kernel)
        bias_top, bias_left = bias_start(row, rows, kernel), bias_start(column, columns, kernel)
        keys = k[b, h, top : top + kernel, left : left + kernel]
        bias = weights["rpb"][h][bias_top : bias_top + kernel, bias_left : bias_left + kernel]
        logits = keys @ (q[b, h, row, column] * module.scale) + bias
        attention = np.exp(logits - logits.max())
        values = v[b, h, top : top + kernel, left : left + kernel]
        total = (attention[..., None] * values).sum(axis=(0, 1))
        out[b, row, column, h] = total / attention.sum()
    return out.reshape(batch, height, width, dim) @ weights["proj.weight"].T + weights["proj.bias"]


def random_module(
    kernel: int, resolution: tuple[int, int], **options: object
) -> NeighborhoodAttention:
    module = NeighborhoodAttention(6, 2, kernel, resolution, **options)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module.eval()


@pytest.mark.parametrize(
    ("kernel", "resolution"),
    [
        (7, (7, 7)),  # every query sees the whole map
        (7, (14, 9)),
        (3, (5, 8)),
        (3, (9, 11)),  # both axes cut into tiles, one with queries to spare
        (3, (4, 13)),  # one axis cut
        (5, (16, 15)),
        (7, (2, 3)),  # smaller than the kernel
        (5, (3, 17)),
        (3, (1, 1)),
    ],
)
def test_equals_the_definition(kernel: int, resolution: tuple[int, int]) -> None:
    module = random_module(kernel, resolution).double()
    x = np.random.default_rng(0).standard_normal((2, *resolution, 6))
    with torch.no_grad():
        ours = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours, naive(module, x, kernel), rtol=1e-12, atol=1e-12)


def test_options_reach_the_attention() -> None:
    module = random_module(3, (4, 5), qkv_bias=False, qk_scale=0.3).double()
    assert module.scale == 0.3
    assert module.qkv.bias is None
    x = np.random.default_rng(0).standard_normal((1, 4, 5, 6))
    with torch.no_grad():
        ours = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours, naive(module, x, 3), rtol=1e-12, atol=1e-12)


def test_state_dict_is_the_public_one() -> None:
    assert set(random_module(7, (7, 7)).state_dict()) == {
        "qkv.weight",
        "qkv.bias",
        "rpb",
        "proj.weight",
        "proj.bias",
    }


def test_hidden_keys_stay_hidden_in_half_precision() -> None:
    module = random_module(3, (10, 10))
    x = torch.randn(1, 10, 10, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        far = x.clone()
        far[:, 5:] = 30.0  # rows 5 and up are out of the reach of rows 0 to 3
        near, moved = module.half()(x.half()), module.half()(far.half())
    assert torch.equal(near[:, :4], moved[:, :4])
    assert not torch.equal(near[:, 4], moved[:, 4])


@pytest.mark.parametrize("resolution", [(9, 11), (14, 14), (2, 3)])
def test_no_tensor_has_a_rank_above_four(resolution: tuple[int, int]) -> None:
    module = random_module(3 if resolution[0] == 9 else 7, resolution)

    class Ranks(TorchDispatchMode):
        highest = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                self.highest = max(self.highest, result.dim())
            return result

    with Ranks() as ranks, torch.no_grad():
        module(torch.randn(2, *resolution, 6))
    assert ranks.highest == 4


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_every_window_lies_in_its_tile(kernel: int) -> None:
    for size in range(kernel, 6 * kernel):
        axis = AxisTiles(size, kernel)
        relative = axis.relative()
        assert (relative >= 0).sum(dim=2).eq(kernel).all()
        assert relative.shape == (len(axis.starts), axis.queries, axis.keys)
        assert relative.max() <= 2 * kernel - 2


def test_cost_is_linear_in_long_axes() -> None:
    axis = AxisTiles(700, 7)
    assert len(axis.starts) * axis.queries * axis.keys == 700 * 13
