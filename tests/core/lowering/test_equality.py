"""Each lowering equals the unfused module in float64, and is as accurate in float32."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slide_deploy.models.slide_attention import AttentionConfig


@st.composite
def configs(draw: st.DrawFn) -> AttentionConfig:
    reduction, heads = draw(st.sampled_from((1, 1, 2))), draw(st.integers(1, 3))
    head_dim = draw(st.integers(1, 9))
    return AttentionConfig(
        dim=heads * head_dim * reduction,
        heads=heads,
        kernel_size=draw(st.sampled_from((1, 3, 3, 5, 7))),
        qkv_bias=draw(st.booleans()),
        qk_scale=draw(st.sampled_from((None, 0.3))),
        reduction=reduction,
        position_bias=draw(st.booleans()),
        share_kernel=draw(st.booleans()),
        share_qkv=draw(st.booleans()),
    )


# Maps smaller than the kernel, a single pixel, and maps with a middle.
SIZES = st.one_of(st.integers(1, 3), st.integers(4, 11))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    config=configs(), batch=st.integers(1, 3), height=SIZES, width=SIZES, seed=st.integers(0, 99)
)
def test_equals_the_unfused_module(
    lowering, attention, tokens, error, built, config, batch, height, width, seed
):
    trained, fused = attention(config, seed)
    x = tokens(batch, height, width, config.dim, seed=seed)
    assert error(built(lowering, fused), trained, x) <= 1e-12


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 3), (3, 17), (8, 8)])
@pytest.mark.parametrize("side", [1, 3, 5, 7])
def test_equals_on_maps_of_any_size(lowering, attention, tokens, error, built, side, shape):
    trained, fused = attention(AttentionConfig(dim=6, heads=2, kernel_size=side))
    assert error(built(lowering, fused), trained, tokens(2, *shape, 6)) <= 1e-12


CONFIGS = {
    "paper": AttentionConfig(dim=96, heads=3),
    "unshared, 5": AttentionConfig(dim=64, heads=2, kernel_size=5, share_kernel=False),
    "one projection, 7": AttentionConfig(dim=48, heads=2, kernel_size=7, share_qkv=True),
    "narrow": AttentionConfig(dim=64, heads=2, reduction=2, position_bias=False),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_float32_error_is_that_of_the_unfused_module(
    lowering, attention, tokens, error, built, config
):
    # The largest of 26,000 to 52,000 rounding errors, averaged: one maximum alone is noisy.
    own = of_training = 0.0
    for seed in range(4):
        trained, fused = attention(config, seed, torch.float32)
        x = tokens(2, 17, 16, config.dim, seed=seed, dtype=torch.float32)
        own += error(built(lowering, fused), trained, x)
        of_training += error(trained, trained, x)
    assert own <= 1.5 * of_training


@pytest.mark.parametrize("side", [3, 5])
def test_weights_are_rounded_once(lowering, attention, tokens, error, built, side):
    """Building from float32 weights is building in float64 and rounding."""
    config = AttentionConfig(dim=12, heads=2, kernel_size=side)
    _, fused = attention(config, dtype=torch.float32)
    exact = built(lowering, copy.deepcopy(fused).double()).float()
    for name, value in built(lowering, fused).state_dict().items():
        torch.testing.assert_close(value, exact.state_dict()[name], rtol=0, atol=0)
