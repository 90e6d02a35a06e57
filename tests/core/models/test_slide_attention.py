"""Slide Attention, compared with an independent implementation with loops."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from slide_deploy.models.slide_attention import (
    AttentionConfig,
    FusedSlideAttention,
    SlideAttention,
    shift_kernel,
)

Scramble = Callable[[nn.Module], nn.Module]


@st.composite
def configs(draw: st.DrawFn) -> AttentionConfig:
    """Every variant of the module at small sizes."""
    heads = draw(st.integers(1, 3))
    depth = draw(st.integers(1, 3))
    reduction = draw(st.sampled_from([1, 2]))
    return AttentionConfig(
        dim=heads * depth * reduction,
        heads=heads,
        kernel_size=draw(st.sampled_from([1, 3, 5, 7])),
        qkv_bias=draw(st.booleans()),
        qk_scale=draw(st.sampled_from([None, 0.3])),
        reduction=reduction,
        position_bias=draw(st.booleans()),
        share_kernel=draw(st.booleans()),
        share_qkv=draw(st.booleans()),
    )


maps = st.tuples(st.integers(1, 2), st.integers(1, 8), st.integers(1, 8))


def naive(module: SlideAttention, x: np.ndarray) -> np.ndarray:
    """(B, H, W, C) → (B, H, W, C), from the published description, in numpy loops."""
    config = module.config
    weights = {name: value.detach().double().numpy() for name, value in module.named_parameters()}
    batch, height, width, _ = x.shape
    heads, side = config.heads, config.kernel_size
    taps, inner = side * side, config.dim // config.reduction
    depth = inner // heads
    scale = config.qk_scale or (config.dim / heads) ** -0.5

    def shifted(z: np.ndarray, *paths: str) -> np.ndarray:
        """(d, H, W) → (d, k², H, W): the sum of depthwise convolutions, zero padding."""
        pad = side // 2
        padded = np.pad(z, ((0, 0), (pad, pad), (pad, pad)))
        out = np.zeros((depth, taps, height, width))
        for path in paths:
            for c in range(depth):
                for j in range(taps):
                    for u in range(side):
                        for v in range(side):
                            window = padded[c, u : u + height, v : v + width]
                            out[c, j] += weights[f"{path}.weight"][c * taps + j, 0, u, v] * window
                    out[c, j] += weights[f"{path}.bias"][c * taps + j]
        return out

    result = np.zeros((batch, height, width, inner))
    for b in range(batch):
        tokens = x[b] @ weights["qkv.weight"].T + weights.get("qkv.bias", 0.0)
        for i in range(heads):
            if config.share_qkv:
                own = tokens[..., i * depth : (i + 1) * depth]
                q = k = v = own.transpose(2, 0, 1)
            else:
                own = tokens[..., 3 * i * depth : 3 * (i + 1) * depth].transpose(2, 0, 1)
                q, k, v = own[:depth], own[depth : 2 * depth], own[2 * depth :]
            keys = shifted(k, "dep_conv", "dep_conv1")
            values = shifted(v, "dep_conv", "dep_conv1" if config.share_kernel else "dep_conv2")
            if config.position_bias:
                keys += weights["relative_position_bias_table"][0, i, 0, :, 0, 0][:, None, None]
            logits = (q[:, None] * scale * keys).sum(axis=0)
            powers = np.exp(logits - logits.max(axis=0))
            attention = powers / powers.sum(axis=0)
            head = (attention * values).sum(axis=1)
            result[b, ..., i * depth : (i + 1) * depth] = head.transpose(1, 2, 0)
    return result @ weights["proj.weight"].T + weights["proj.bias"]


def random_map(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@given(config=configs(), size=maps)
def test_equals_the_naive_reading_of_the_specification(
    scrambled: Scramble, config: AttentionConfig, size: tuple[int, int, int]
) -> None:
    module = scrambled(SlideAttention(config).double())
    x = random_map((*size, config.dim))

    found = module(x).detach().numpy()

    expected = naive(module, x.numpy())
    assert np.abs(found - expected).max() <= 1e-12 * max(1.0, np.abs(expected).max())


def test_outputs_of_qkv_are_split_head_first(scrambled: Scramble) -> None:
    module = scrambled(SlideAttention(AttentionConfig(dim=6, heads=2)).double())
    x = random_map((1, 4, 4, 6))
    with torch.no_grad():
        module.proj.weight[:] = torch.eye(6)
        before = module(x)
        module.qkv.weight[9:] += 1.0  # q, k and v of head 1
        after = module(x)
    assert [torch.equal(before[..., own], after[..., own]) for own in (slice(3), slice(3, 6))] == [
        True,
        False,
    ]


def test_taps_outside_of_the_map_take_part_with_their_bias() -> None:
    module = SlideAttention(AttentionConfig(dim=1, heads=1, position_bias=False)).double()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name != "dep_conv.weight":
                parameter.zero_()
        module.qkv.weight[2] = 1.0  # values only: q = k = 0, so each tap weighs 1/9
        module.proj.weight[:] = 1.0
        module.dep_conv1.bias.fill_(9.0)
    # one pixel of value 1: its own tap gives 1, all nine give their bias
    found = module(torch.ones(1, 1, 1, 1, dtype=torch.float64))
    assert found.item() == pytest.approx((1 + 9 * 9) / 9, rel=1e-12)


@pytest.mark.parametrize("side", [1, 3, 5])
def test_shift_kernel_copies_the_neighbour_of_its_tap(side: int) -> None:
    channels = 2
    kernel = shift_kernel(channels, side).numpy()
    expected = np.zeros((channels * side**2, 1, side, side))
    for c in range(channels):
        for j in range(side**2):
            expected[c * side**2 + j, 0, j // side, j % side] = 1
    assert np.array_equal(kernel, expected)


def test_the_fixed_kernel_is_frozen_and_its_bias_is_trained() -> None:
    module = SlideAttention(AttentionConfig(dim=4, heads=2))
    frozen = [name for name, value in module.named_parameters() if not value.requires_grad]
    assert frozen == ["dep_conv.weight"]


def test_state_dict_has_the_public_names_and_shapes() -> None:
    state = SlideAttention(AttentionConfig(dim=6, heads=2)).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "relative_position_bias_table": (1, 2, 1, 9, 1, 1),
        "qkv.weight": (18, 6),
        "qkv.bias": (18,),
        "proj.weight": (6, 6),
        "proj.bias": (6,),
        "dep_conv.weight": (27, 1, 3, 3),
        "dep_conv.bias": (27,),
        "dep_conv1.weight": (27, 1, 3, 3),
        "dep_conv1.bias": (27,),
    }


class Ranks(TorchDispatchMode):
    """Remembers the highest rank that any operation puts out."""

    highest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, torch.Tensor):
                self.highest = max(self.highest, value.ndim)
        return result


@pytest.mark.parametrize("form", [SlideAttention, FusedSlideAttention])
@pytest.mark.parametrize(
    "changes",
    [{}, {"share_qkv": True}, {"share_kernel": False}, {"reduction": 2}],
    ids=lambda changes: "-".join(changes) or "paper",
)
def test_no_tensor_of_the_forward_pass_is_above_rank_4(
    form: type[nn.Module], changes: dict[str, object]
) -> None:
    config = dataclasses.replace(AttentionConfig(dim=8, heads=2), **changes)  # type: ignore[arg-type]
    module = form(config)
    with torch.no_grad(), Ranks() as ranks:
        module(torch.randn(2, 5, 6, 8))
    assert 0 < ranks.highest <= 4
