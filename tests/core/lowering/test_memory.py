"""Peak memory, compared with counts by hand and between lowerings."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from slide_deploy.lowering.catalog import lowering_named, lowerings
from slide_deploy.lowering.memory import low_memory, peak_bytes
from slide_deploy.models.slide_attention import AttentionConfig, FusedSlideAttention


class Function(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.ones(100))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.weight)


def held(x: Tensor, _: Tensor) -> Tensor:
    first = x + 1
    second = first * 2  # x is not needed any more, though the caller holds it
    return second + first.view(10, 10).reshape(100)


@pytest.mark.parametrize(
    ("function", "tensors"),
    [
        (lambda x, w: x, 1),
        (lambda x, w: x + w, 2),  # weights are not counted
        (lambda x, w: x.view(10, 10).transpose(0, 1), 1),  # views cost nothing
        (lambda x, w: x.view(10, 10).transpose(0, 1).contiguous(), 2),
        (lambda x, w: (x + 1) + x, 3),
        (lambda x, w: ((x + 1) + 1) + 1, 2),  # dead intermediates are free again
        (held, 3),
    ],
)
def test_counts_what_is_alive(function, tensors):
    assert peak_bytes(Function(function), (100,)) == tensors * 400


def test_the_tensors_may_be_of_any_type():
    assert peak_bytes(Function(lambda x, w: x + w).double(), (100,)) == 2 * 800


def test_grows_with_the_map_not_with_the_weights(lowering):
    small, large = (
        peak_bytes(_built(lowering.name, AttentionConfig(dim=24, heads=3)), (1, side, side, 24))
        for side in (16, 32)
    )
    assert 3.5 * small < large < 4.1 * small


def test_the_smallest_is_picked():
    config = AttentionConfig(dim=96, heads=3)
    peaks = {
        lowering.name: peak_bytes(_built(lowering.name, config), (1, 56, 56, 96))
        for lowering in lowerings()
    }
    assert low_memory("any", config, (56, 56)) == min(peaks, key=peaks.__getitem__)
    # q, k, v and the input are 4 maps of 1.15 MiB; k² copies of one are 10.3 MiB.
    assert peaks["tap-by-tap"] < 6 * 2**20
    assert peaks["im2col"] > 20 * 2**20
    assert peaks["depthwise"] > 20 * 2**20


def _built(name: str, config: AttentionConfig) -> nn.Module:
    return lowering_named(name).build(FusedSlideAttention(config))
