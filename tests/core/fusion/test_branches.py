"""Fusion gives one equivalent convolution, and the learned share is measured."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from slide_deploy.errors import ConversionError
from slide_deploy.fusion.branches import fuse, fuse_attention, off_tap_share, shift_reports
from slide_deploy.models.slide_attention import (
    AttentionConfig,
    FusedSlideAttention,
    SlideAttention,
    shift_kernel,
)
from slide_deploy.models.slide_swin import SlideSwin

Scramble = Callable[[nn.Module], nn.Module]
MakeModel = Callable[..., SlideSwin]


@given(
    heads=st.integers(1, 3),
    depth=st.integers(1, 3),
    kernel=st.sampled_from([1, 3, 5, 7]),
    reduction=st.sampled_from([1, 2]),
    share_kernel=st.booleans(),
    share_qkv=st.booleans(),
    position_bias=st.booleans(),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_fused_equals_the_training_form(
    scrambled: Scramble,
    heads: int,
    depth: int,
    kernel: int,
    reduction: int,
    share_kernel: bool,
    share_qkv: bool,
    position_bias: bool,
    size: tuple[int, int],
) -> None:
    config = AttentionConfig(
        dim=heads * depth * reduction,
        heads=heads,
        kernel_size=kernel,
        reduction=reduction,
        position_bias=position_bias,
        share_kernel=share_kernel,
        share_qkv=share_qkv,
    )
    module = scrambled(SlideAttention(config).double())
    x = torch.randn(
        2, *size, config.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )

    expected, found = module(x), fuse_attention(module, "attn")(x)

    assert (found - expected).abs().max() <= 1e-12 * max(1.0, float(expected.abs().max()))


def test_one_convolution_is_left_in_place_of_two(make_model: MakeModel) -> None:
    fused = fuse(make_model(depths=(2, 2)))
    names = [name for name, _ in fused.named_parameters()]
    assert not any("dep_conv" in name for name in names)
    assert sum(isinstance(m, FusedSlideAttention) for m in fused.modules()) == 2


def test_a_model_that_is_one_attention_is_fused(scrambled: Scramble) -> None:
    module = scrambled(SlideAttention(AttentionConfig(8, 2))).double()
    fused = fuse(module)
    assert isinstance(fused, FusedSlideAttention)
    tokens = torch.randn(2, 5, 6, 8, dtype=torch.float64)
    assert torch.allclose(fused(tokens), module(tokens), rtol=0, atol=1e-12)


def test_the_original_is_left_as_it_was(make_model: MakeModel) -> None:
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fuse(model)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_whole_model_computes_the_same(make_model: MakeModel) -> None:
    model = make_model().double()
    image = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    expected = model(image)
    assert torch.allclose(fuse(model)(image), expected, rtol=0, atol=1e-12)


def test_float32_weights_are_summed_exactly_and_rounded_once(scrambled: Scramble) -> None:
    module = scrambled(SlideAttention(AttentionConfig(8, 2)))
    exact = module.dep_conv.weight.double() + module.dep_conv1.weight.double()
    assert torch.equal(fuse_attention(module, "attn").shift.weight, exact.float())


def test_a_fusion_that_changes_the_output_is_refused(
    scrambled: Scramble, monkeypatch: pytest.MonkeyPatch
) -> None:
    from slide_deploy.fusion import branches as fusion

    right = fusion._sum
    monkeypatch.setattr(fusion, "_sum", lambda *parts: right(*parts) * (1 + 1e-9))
    with pytest.raises(ConversionError, match="attn"):
        fuse_attention(scrambled(SlideAttention(AttentionConfig(8, 2))), "attn")


def test_a_pure_shift_has_learned_nothing() -> None:
    assert off_tap_share(shift_kernel(3, 3)) == 0.0


@given(tap=st.floats(0.1, 2), other=st.floats(0, 2))
def test_the_learned_share_is_the_part_of_the_norm_off_the_taps(tap: float, other: float) -> None:
    kernel = shift_kernel(2, 3).double() * tap
    kernel[5, 0, 0, 0] = other  # tap 5 is row 1, column 2
    share = other / np.hypot(np.sqrt(18) * tap, other)
    assert off_tap_share(kernel) == pytest.approx(share, abs=1e-12)


@pytest.mark.parametrize("form", ["unfused", "fused"])
def test_reports_name_every_attention_in_forward_order(make_model: MakeModel, form: str) -> None:
    model = make_model(depths=(2, 1), slide_stages=2)
    found = shift_reports(fuse(model) if form == "fused" else model)
    assert [report.name for report in found] == [
        "layers.0.blocks.0.attn",
        "layers.0.blocks.1.attn",
        "layers.1.blocks.0.attn",
    ]


def test_both_forms_report_the_same_share(make_model: MakeModel) -> None:
    model = make_model()
    shares = [
        [report.off_tap_share for report in shift_reports(form)] for form in (model, fuse(model))
    ]
    assert shares[0] == pytest.approx(shares[1], rel=1e-6)
    assert min(shares[0]) > 0
