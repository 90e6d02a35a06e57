"""Lowerings of a model's attentions are selected, checked and refused."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn

from slide_deploy.errors import ConversionError, UnknownName
from slide_deploy.fusion.branches import fuse
from slide_deploy.lowering import replacement as lowering
from slide_deploy.lowering.catalog import CANONICAL, lowering_named, lowerings
from slide_deploy.lowering.lowering import ImpossibleLowering, Lowering
from slide_deploy.lowering.memory import low_memory
from slide_deploy.lowering.replacement import Choice, always, lower, resolutions
from slide_deploy.models.slide_attention import AttentionConfig, FusedSlideAttention
from slide_deploy.models.slide_swin import SlideSwin, SlideSwinConfig
from slide_deploy.types import TensorSpec

IMAGE = (TensorSpec("image", ("batch", 3, 32, 64)),)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    config = SlideSwinConfig(
        image_size=(32, 64),
        embed_dim=8,
        depths=(2, 1, 1),
        heads=(2, 4, 4),
        slide_stages=2,
        window_size=2,
        num_classes=5,
    )
    return fuse(SlideSwin(config)).eval()


def test_every_file_of_the_issue_is_found():
    assert {lowering.name for lowering in lowerings()} == {
        *("depthwise", "tap-by-tap", "two-level", "flat", "flat-16", "im2col", "slices")
    }
    assert CANONICAL in {lowering.name for lowering in lowerings()}


def test_every_lowering_says_what_it_is(lowering):
    assert lowering_named(lowering.name) is lowering


def test_an_unknown_lowering_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match=r"unknown lowering 'two-levle' .*'two-level'"):
        lowering_named("two-levle")
    with pytest.raises(UnknownName):
        always("nonsense")


def test_the_map_of_each_attention_is_found(model):
    assert resolutions(model, IMAGE) == {
        "layers.0.blocks.0.attn": (8, 16),
        "layers.0.blocks.1.attn": (8, 16),
        "layers.1.blocks.0.attn": (4, 8),
    }


def test_the_map_is_found_where_a_model_makes_tensors_on_the_processor():
    class Masked(nn.Sequential):
        def forward(self, x):
            return super().forward(x).masked_fill(torch.arange(4) > 2, 0)

    model = Masked(FusedSlideAttention(AttentionConfig(dim=4, heads=2)))
    tokens = (TensorSpec("tokens", ("batch", 5, 6, 4)),)
    with pytest.raises(RuntimeError):
        copy.deepcopy(model).to("meta")(torch.empty(1, 5, 6, 4, device="meta"))
    assert resolutions(model, tokens) == {"0": (5, 6)}


def test_every_attention_is_replaced_and_equal(lowering, model):
    lowered, choices = lower(model, IMAGE, always(lowering.name))
    assert choices == tuple(
        Choice(name, size, lowering.name) for name, size in resolutions(model, IMAGE).items()
    )
    x = torch.randn(3, 3, 32, 64)
    with torch.no_grad():
        torch.testing.assert_close(lowered(x), model(x), rtol=1e-4, atol=1e-5)
    kept = [m for m in lowered.modules() if isinstance(m, FusedSlideAttention)]
    assert len(kept) == (3 if lowering.name == CANONICAL else 0)
    assert not lowered.training
    assert {p.dtype for p in lowered.parameters()} == {torch.float32}


def test_a_lowering_per_stage(model):
    def choose(name: str, config: AttentionConfig, resolution: tuple[int, int]) -> str:
        assert config.dim == {8: 8, 4: 16}[resolution[0]]
        return "flat" if resolution == (8, 16) else "two-level"

    lowered, choices = lower(model, IMAGE, choose)
    assert [choice.lowering for choice in choices] == ["flat", "flat", "two-level"]
    x = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        torch.testing.assert_close(lowered(x), model(x), rtol=1e-4, atol=1e-5)


def test_the_model_itself_stays(model):
    before = copy.deepcopy(model.state_dict())
    lower(model, IMAGE, always("tap-by-tap"))
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_lone_attention_is_a_model(attention, tokens):
    _, fused = attention(AttentionConfig(dim=8, heads=2))
    spec = (TensorSpec("x", (1, 5, 6, 8)),)
    lowered, (choice,) = lower(fused, spec, always("flat"))
    assert (choice.name, choice.resolution) == ("", (5, 6))
    x = tokens(1, 5, 6, 8)
    torch.testing.assert_close(lowered(x), fused(x))


def test_a_model_without_slide_attention_has_nothing_to_choose():
    lowered, choices = lower(nn.Linear(3, 2), (TensorSpec("x", (1, 3)),), always("flat"))
    assert choices == ()
    assert lowered(torch.ones(1, 3)).shape == (1, 2)


def test_a_lowering_that_is_not_equal_is_refused(model, monkeypatch):
    def wrong(module: FusedSlideAttention) -> nn.Module:
        module = copy.deepcopy(module)
        with torch.no_grad():
            module.proj.bias += 1e-9
        return module

    monkeypatch.setattr(lowering, "lowering_named", lambda name: Lowering(name, wrong))
    with pytest.raises(ConversionError, match=r"changed the output of layers\.0\.blocks\.0\.attn"):
        lower(model, IMAGE, lambda *_: "wrong")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dilation": (2, 2), "padding": (2, 2)}, "dilation 1"),
        ({"padding_mode": "circular"}, "zero padding"),
    ],
)
def test_an_impossible_lowering_says_where_and_why(model, change, reason):
    other = copy.deepcopy(model)
    shift = other.layers[1].blocks[0].attn.shift
    for key, value in change.items():
        setattr(shift, key, value)
    with pytest.raises(ImpossibleLowering, match=rf"layers\.1\.blocks\.0\.attn cannot .* {reason}"):
        lower(other, IMAGE, always("two-level"))
    lower(other, IMAGE, always(CANONICAL))


def test_an_even_kernel_is_refused(attention):
    _, fused = attention(AttentionConfig(dim=8, heads=2))
    fused.config = dataclasses.replace(fused.config, kernel_size=2)
    with pytest.raises(ImpossibleLowering, match="even size 2"):
        lowering_named("flat").build(fused)


def test_low_memory_is_a_choice(model):
    _, choices = lower(model, IMAGE, low_memory)
    assert {choice.lowering for choice in choices} <= {
        lowering.name for lowering in lowerings()
    } - {CANONICAL}
