"""A single Slide Attention module: NCHW input and output, recognition."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from slide_deploy.errors import AmbiguousModel
from slide_deploy.models.slide_attention import AttentionConfig, SlideAttention
from slide_deploy.models.slide_module import FAMILY, SlideModule, SlideModuleConfig


@st.composite
def configs(draw: st.DrawFn) -> AttentionConfig:
    """Modules whose sizes their own weights tell: no qk_scale, which no shape shows."""
    heads, depth = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    reduction = draw(st.sampled_from([1, 2, 4]))
    return AttentionConfig(
        dim=heads * depth * reduction,
        heads=heads,
        kernel_size=draw(st.sampled_from([1, 3, 5, 7])),
        qkv_bias=draw(st.booleans()),
        reduction=reduction,
        position_bias=draw(st.booleans()),
        share_kernel=draw(st.booleans()),
        share_qkv=draw(st.booleans()),
    )


@given(config=configs())
def test_a_module_is_read_off_its_own_weights(config: AttentionConfig) -> None:
    state = SlideModule(SlideModuleConfig((5, 6), config)).state_dict()
    assert FAMILY.recognise(state, None, (5, 6)).config == SlideModuleConfig((5, 6), config)


def test_works_on_maps_with_channels_first(
    scrambled: Callable[[nn.Module], nn.Module],
) -> None:
    module = scrambled(SlideModule(SlideModuleConfig((5, 6), AttentionConfig(8, 2))))
    attention = SlideAttention(AttentionConfig(8, 2)).eval()
    attention.load_state_dict(module.attention.state_dict())
    module, attention = module.double(), attention.double()
    x = torch.randn(2, 8, 5, 6, dtype=torch.float64)
    expected = attention(x.movedim(1, 3)).movedim(3, 1)
    assert torch.allclose(module(x), expected, rtol=0, atol=1e-12)


def test_the_size_of_its_map_is_asked_for() -> None:
    state = SlideModule(SlideModuleConfig((5, 6), AttentionConfig(8, 2))).state_dict()
    with pytest.raises(AmbiguousModel, match="--image-size"):
        FAMILY.recognise(state, None, None)
