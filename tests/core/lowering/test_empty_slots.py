"""Slots without a tap take no share of the attention, and bring no large constant with them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slide_deploy.lowering.layers import block_slots, empty_slot_bias, repeat_first_tap
from slide_deploy.models.slide_attention import AttentionConfig

# An int8 range of ±64 has steps of 0.5; the smallest float16 step at 64 is 0.0625.
LARGEST_CONSTANT = 64.0


@given(
    taps=st.sampled_from((1, 9, 25, 49)),
    scale=st.floats(1e-6, 1e5),
    seed=st.integers(0, 99),
    dtype=st.sampled_from((torch.float32, torch.float64)),
)
def test_empty_slots_share_less_than_half_a_unit_in_the_last_place(taps, scale, seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(50, taps, generator=generator, dtype=dtype)
    slots = block_slots(taps)
    rows = repeat_first_tap(logits, slots) + empty_slot_bias(taps, slots, dtype).to(dtype)
    share = rows.double().softmax(dim=-1)[:, taps:].sum(dim=-1)
    assert float(share.max()) <= torch.finfo(dtype).eps / 4


@pytest.mark.parametrize("side", [3, 5])
def test_no_form_has_a_constant_that_a_quantized_tensor_cannot_hold(form, attention, built, side):
    _, fused = attention(AttentionConfig(dim=12, heads=2, kernel_size=side), dtype=torch.float32)
    for name, value in built(form, fused).state_dict().items():
        assert float(value.abs().max()) < LARGEST_CONSTANT, name


@pytest.mark.parametrize("bias", [-200.0, 200.0], ids=["smallest", "largest"])
def test_the_first_tap_may_have_any_logit(form, attention, tokens, error, built, bias):
    """Empty slots follow the first tap: where it dominates they still take no share."""
    trained, fused = attention(AttentionConfig(dim=12, heads=2), dtype=torch.float32)
    with torch.no_grad():
        for module in (trained, fused):
            module.relative_position_bias_table[:, :, :, 0] = bias
    x = tokens(2, 7, 6, 12, dtype=torch.float32)
    assert error(built(form, fused), trained, x) <= 2 * error(trained, trained, x) + 1e-7
