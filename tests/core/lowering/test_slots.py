"""Repeated taps do not change the softmax, at any scale and without a mask."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slide_deploy.lowering.layers import block_slots, repeat_taps, slot_bias
from slide_deploy.models.slide_attention import AttentionConfig


@given(taps=st.sampled_from((1, 9, 25, 49)), scale=st.floats(1e-6, 1e12), seed=st.integers(0, 99))
def test_a_tap_in_several_slots_weighs_what_it_would_alone(taps, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(50, taps, generator=generator, dtype=torch.float64)
    slots = block_slots(taps)
    shares = (repeat_taps(logits, slots) + slot_bias(taps, slots)).softmax(dim=-1)
    together = torch.zeros_like(logits).index_add(1, torch.arange(slots) % taps, shares)
    torch.testing.assert_close(together, logits.softmax(dim=-1), rtol=0, atol=1e-10 + 1e-15 * scale)


@pytest.mark.parametrize("side", [3, 5])
def test_no_lowering_has_a_large_constant(lowering, attention, built, side):
    """One large constant in the logits would take the whole range of an 8-bit tensor."""
    _, fused = attention(AttentionConfig(dim=12, heads=2, kernel_size=side), dtype=torch.float32)
    for name, value in built(lowering, fused).state_dict().items():
        assert float(value.abs().max()) < 10, name


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6])
@pytest.mark.parametrize("bias", [-200.0, 200.0], ids=["smallest", "largest"])
def test_any_tap_may_dominate(lowering, attention, tokens, error, built, bias, scale):
    """Also where logits are so large that float32 rounds a small constant away."""
    trained, fused = attention(AttentionConfig(dim=12, heads=2), dtype=torch.float32)
    with torch.no_grad():
        for module in (trained, fused):
            module.relative_position_bias_table[:, :, :, 0] = bias
            module.qkv.weight *= scale
    x = tokens(2, 7, 6, 12, dtype=torch.float32)
    assert error(built(lowering, fused), trained, x) <= 4 * error(trained, trained, x) + 1e-7
