"""Shift pairs are found in any module and merged exactly, or left with a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slide_deploy.fusion.pairs import Match, fuse_by_structure
from slide_deploy.models.slide_attention import AttentionConfig, SlideAttention, shift_kernel

CHANNELS, SIDE = 2, 3


def depthwise(one_hot: bool = False, **changes: Any) -> nn.Conv2d:
    sizes = {"padding": SIDE // 2, "groups": CHANNELS, **changes}
    conv = nn.Conv2d(CHANNELS, CHANNELS * SIDE**2, SIDE, **sizes)
    if one_hot:
        conv.weight.data = shift_kernel(CHANNELS, SIDE)
    return conv


class Pair(nn.Module):
    """Two paths under names of nobody's, joined as the case says."""

    def __init__(
        self, join: Callable[[Any, Tensor], Tensor], fixed: nn.Module, learned: nn.Module
    ) -> None:
        super().__init__()
        self.rigid, self.soft, self.other = fixed, learned, depthwise()
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self, x)


def plain(m: Any, x: Tensor) -> Tensor:
    return m.rigid(x) + m.soft(x)


def convolutions(module: nn.Module) -> int:
    assert isinstance(module, torch.fx.GraphModule)
    return sum("conv" in str(node.target) for node in module.graph.nodes if "call" in node.op)


X = torch.randn(2, CHANNELS, 5, 6, generator=torch.Generator().manual_seed(1))


def outcome(module: nn.Module) -> tuple[nn.Module, tuple[Match, ...]]:
    """Merge, and hold the result against the module, which must stay as it was."""
    module = module.eval().requires_grad_(False)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    merged, found = fuse_by_structure(module, (X,))
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    torch.testing.assert_close(merged(X), module(X), rtol=1e-5, atol=1e-5)
    return merged, found


def inplace(m: Any, x: Tensor) -> Tensor:
    y = m.soft(x)
    y += m.rigid(x)
    return y


@pytest.mark.parametrize("join", [plain, lambda m, x: m.soft(x) + m.rigid(x), inplace])
@pytest.mark.parametrize("bias", [(True, True), (False, True), (False, False)])
def test_a_pair_becomes_one_convolution(join: Any, bias: tuple[bool, bool]) -> None:
    module = Pair(join, depthwise(one_hot=True, bias=bias[0]), depthwise(bias=bias[1]))
    merged, found = outcome(module)
    assert [entry.action for entry in found] == ["fused"]
    assert set(found[0].name.split(" + ")) == {"rigid", "soft"}
    assert convolutions(merged) == 1
    assert len(list(merged.parameters())) == 1 + any(bias)


def test_the_sum_is_rounded_once() -> None:
    module = Pair(plain, depthwise(one_hot=True), depthwise())
    merged, _ = outcome(module)
    exact = module.rigid.weight.double() + module.soft.weight.double()
    assert torch.equal(dict(merged.named_parameters())["fused_shift_0.weight"], exact.float())


def test_padding_as_a_word_is_the_same_geometry() -> None:
    fixed, learned = depthwise(one_hot=True, padding="same"), depthwise()
    merged, found = outcome(Pair(plain, fixed, learned))
    assert found[0].action == "fused", found
    assert convolutions(merged) == 1


def test_a_pair_used_twice_is_merged_at_both_places_and_stored_once() -> None:
    def twice(m: Any, x: Tensor) -> Tensor:
        return plain(m, x) * plain(m, x.flip(-1))

    merged, found = outcome(Pair(twice, depthwise(one_hot=True), depthwise()))
    assert [entry.action for entry in found] == ["fused"]
    assert (convolutions(merged), len(list(merged.parameters()))) == (2, 2)


def test_a_shift_with_two_partners_is_merged_with_each() -> None:
    def unshared(m: Any, x: Tensor) -> Tensor:
        return (m.rigid(x) + m.soft(x)) * (m.rigid(x) + m.other(x))

    merged, found = outcome(Pair(unshared, depthwise(one_hot=True), depthwise()))
    assert [entry.name for entry in found] == ["rigid + soft", "rigid + other"]
    assert {entry.action for entry in found} == {"fused"}
    assert (convolutions(merged), len(list(merged.parameters()))) == (2, 4)


LEFT: dict[str, tuple[Callable[[Any, Tensor], Tensor], nn.Module, nn.Module, str]] = {
    "stride": (
        lambda m, x: m.rigid(x) + m.soft(x).repeat_interleave(2, 2)[:, :, :5].repeat(1, 1, 1, 2),
        depthwise(one_hot=True),
        depthwise(stride=2),
        "is between",
    ),
    "dilation": (
        plain,
        depthwise(one_hot=True),
        depthwise(dilation=2, padding=2),
        "geometries differ: padding (1, 1) and (2, 2), dilation (1, 1) and (2, 2)",
    ),
    "padding_mode": (
        plain,
        depthwise(one_hot=True),
        depthwise(padding_mode="circular"),
        "soft has another padding_mode than zeros",
    ),
    "non-linearity on the learned path": (
        lambda m, x: m.rigid(x) + F.relu(m.soft(x)),
        depthwise(one_hot=True),
        depthwise(),
        "relu is between soft and the addition",
    ),
    "non-linearity on the fixed path": (
        lambda m, x: torch.tanh(m.rigid(x)) + m.soft(x),
        depthwise(one_hot=True),
        depthwise(),
        "tanh is between it and the addition",
    ),
    "inputs": (
        lambda m, x: m.rigid(x) + m.soft(x * 2),
        depthwise(one_hot=True),
        depthwise(),
        "they have different inputs",
    ),
    "no shift": (plain, depthwise(), depthwise(), "neither has one-hot kernels"),
    "not depthwise": (
        plain,
        depthwise(one_hot=True),
        nn.Conv2d(CHANNELS, CHANNELS * 9, 3, padding=1),
        "not a depthwise convolution",
    ),
    "alone": (lambda m, x: m.rigid(x), depthwise(one_hot=True), depthwise(), "not added"),
    "weighted": (
        lambda m, x: torch.add(m.rigid(x), m.soft(x), alpha=2),
        depthwise(one_hot=True),
        depthwise(),
        "weighted",
    ),
}


@pytest.mark.parametrize("case", LEFT)
def test_what_cannot_be_merged_exactly_is_left_and_said_so(case: str) -> None:
    join, fixed, learned, why = LEFT[case]
    module = Pair(join, fixed, learned)
    merged, found = outcome(module)
    assert merged is module
    assert [entry.action for entry in found] == ["left"]
    assert why in found[0].why
    assert "rigid" in found[0].name


def test_one_bad_pair_does_not_stop_the_good_one() -> None:
    def both(m: Any, x: Tensor) -> Tensor:
        return (m.rigid(x) + m.soft(x)) * (m.rigid(x) + F.relu(m.other(x)))

    merged, found = outcome(Pair(both, depthwise(one_hot=True), depthwise()))
    assert [(e.name, e.action) for e in found] == [("rigid + soft", "fused"), ("rigid", "left")]
    assert convolutions(merged) == 3


def test_a_nearly_one_hot_kernel_is_no_shift() -> None:
    nearly = depthwise(one_hot=True)
    nearly.weight.data[0, 0, 0, 1] = 1e-6
    _, found = outcome(Pair(plain, nearly, depthwise()))
    assert found[0].action == "left"


def test_our_own_modules_are_found_by_class(scrambled: Any) -> None:
    module = scrambled(nn.Sequential(SlideAttention(AttentionConfig(dim=4, heads=2))))
    x = torch.randn(1, 5, 5, 4)
    merged, found = fuse_by_structure(module, (x,))
    assert [(e.name, e.action) for e in found] == [("0", "fused")]
    torch.testing.assert_close(merged(x), module(x), rtol=1e-5, atol=1e-5)
    assert "dep_conv1.weight" not in " ".join(merged.state_dict())


def test_nothing_to_merge_gives_the_module_back() -> None:
    module = nn.Sequential(nn.Conv2d(CHANNELS, 3, 1), nn.ReLU())
    assert outcome(module) == (module, ())


def test_what_torch_cannot_capture_is_left() -> None:
    class Branching(Pair):
        def forward(self, x: Tensor) -> Tensor:
            return plain(self, x) if float(x.sum()) > 0 else self.other(x)

    module = Branching(plain, depthwise(one_hot=True), depthwise()).eval()
    merged, found = fuse_by_structure(module, (X,))
    assert merged is module
    assert found[0].action == "left"
    assert "torch.export cannot capture" in found[0].why


def test_a_free_batch_stays_free() -> None:
    module = Pair(
        lambda m, x: plain(m, x).reshape(x.shape[0], -1), depthwise(one_hot=True), depthwise()
    ).eval()
    merged, found = fuse_by_structure(module, (X,), ({0: torch.export.Dim("batch", min=1)},))
    assert found[0].action == "fused"
    for batch in (1, 3):
        x = torch.randn(batch, *X.shape[1:])
        torch.testing.assert_close(merged(x), module(x), rtol=1e-5, atol=1e-5)
