"""Slide Attention modules are found in any model by their outputs, or left with a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slide_deploy.fusion.matching import match_attentions
from slide_deploy.fusion.pairs import Match
from slide_deploy.models.slide_attention import (
    AttentionConfig,
    FusedSlideAttention,
    SlideAttention,
    shift_kernel,
)

DIM, HEADS = 8, 2


class Theirs(nn.Module):
    """Slide Attention as someone might write it: step by step, each step a way of their own."""

    def __init__(
        self,
        *,
        first: bool = True,
        pointwise: str = "linear",
        parts_first: bool = False,
        reduction: int = 1,
        share_qkv: bool = False,
        values: str = "shared",
        side: int = 3,
        bias: bool = True,
        table: tuple[int, ...] | None = (1, HEADS, 1, 9, 1, 1),
        scale: float | None = None,
        turned: bool = False,
        logits: Callable[[Tensor], Tensor] = lambda x: x,
        path: Callable[[Tensor], Tensor] = lambda x: x,
        **convolution: Any,
    ) -> None:
        super().__init__()
        self.inner = DIM // reduction
        self.first, self.parts_first, self.share_qkv = first, parts_first, share_qkv
        self.values, self.logits, self.path = values, logits, path
        depth = self.inner // HEADS
        self.factor = depth**-0.5 if scale is None else scale
        self.flat = pointwise == "linear"
        outputs = self.inner if share_qkv else 3 * self.inner
        make: Any = nn.Linear if self.flat else lambda i, o, bias: nn.Conv2d(i, o, 1, bias=bias)
        self.joint, self.mix = make(DIM, outputs, bias=bias), make(self.inner, DIM, bias=bias)

        def shift(one_hot: bool = False, **more: Any) -> nn.Conv2d:
            conv = nn.Conv2d(
                *(depth, depth * side**2, side), padding=side // 2, groups=depth, bias=bias, **more
            )
            if one_hot:
                kernel = shift_kernel(depth, side)
                conv.weight = nn.Parameter(kernel.mT if turned else kernel, requires_grad=False)
            return conv

        self.soft, self.rigid = shift(**convolution), shift(one_hot=True)
        if values != "shared":
            self.soft_of_values = shift()
        if values == "apart":
            self.rigid_of_values = shift(one_hot=True)
        self.bonus = None if table is None else nn.Parameter(torch.zeros(table))

    def shifted(self, x: Tensor, values: bool) -> Tensor:
        apart = values and self.values != "shared"
        soft = self.soft_of_values if apart else self.soft
        rigid = self.rigid_of_values if values and self.values == "apart" else self.rigid
        return rigid(x) + self.path(soft(x))

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.first else x.movedim(3, 1)
        batch, _, height, width = x.shape
        joint = self.joint(x.movedim(1, 3)).movedim(3, 1) if self.flat else self.joint(x)
        if self.share_qkv:
            q = k = v = joint.reshape(batch * HEADS, -1, height, width)
        elif self.parts_first:
            q, k, v = (y.reshape(batch * HEADS, -1, height, width) for y in joint.chunk(3, 1))
        else:
            q, k, v = joint.reshape(batch * HEADS, -1, height, width).chunk(3, 1)
        taps = self.rigid.kernel_size[0] ** 2
        k = self.shifted(k, False).reshape(batch, HEADS, -1, taps, height, width)
        v = self.shifted(v, True).reshape(batch, HEADS, -1, taps, height, width)
        if self.bonus is not None:
            bonus = self.bonus.T if self.bonus.shape[0] == taps else self.bonus
            k = k + bonus.reshape(1, HEADS, 1, taps, 1, 1)
        logits = (q.reshape(batch, HEADS, -1, 1, height, width) * self.factor * k).sum(2)
        share = self.logits(logits).softmax(2)
        out = (share[:, :, None] * v).sum(3).reshape(batch, -1, height, width)
        out = self.mix(out.movedim(1, 3)).movedim(3, 1) if self.flat else self.mix(out)
        return out if self.first else out.movedim(1, 3)


def maps(module: Theirs) -> Tensor:
    shape = (1, DIM, 5, 6) if module.first else (1, 5, 6, DIM)
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def outcome(module: nn.Module, x: Tensor) -> tuple[nn.Module, tuple[Match, ...]]:
    """Recognise, and hold the result against the module, which must stay as it was."""
    before = {key: value.clone() for key, value in module.state_dict().items()}
    merged, found = match_attentions(module, (x,))
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    torch.testing.assert_close(merged(x), module(x), rtol=1e-4, atol=1e-5)
    assert not any(own.training for own in merged.modules())
    return merged, found


def attentions(module: nn.Module) -> list[FusedSlideAttention]:
    return [own for own in module.modules() if isinstance(own, FusedSlideAttention)]


WAYS: dict[str, dict[str, Any]] = {
    "as the paper has it": {},
    "channels last": {"first": False},
    "1×1 convolutions": {"pointwise": "conv"},
    "q, k and v apart before heads": {"parts_first": True},
    "narrower": {"reduction": 2, "scale": (DIM // HEADS) ** -0.5},
    "one projection for q, k and v": {"share_qkv": True},
    "values with a learned path of their own": {"values": "learned"},
    "values with both paths of their own": {"values": "apart"},
    "five by five": {"side": 5, "table": (HEADS, 25)},
    "no biases": {"bias": False, "table": None},
    "a table turned around": {"table": (9, HEADS)},
    "a factor of its own": {"scale": 0.123},
    "no factor": {"scale": 1.0},
    "taps column by column": {"turned": True},
    "padding as a word": {"padding_mode": "zeros"},
}


@pytest.mark.parametrize("way", WAYS)
def test_an_attention_is_recognised_whichever_way_it_is_written(way: str, scrambled: Any) -> None:
    module = scrambled(Theirs(**WAYS[way]))
    merged, (found,) = outcome(module, maps(module))
    assert found.action == "matched", found.why
    (attention,) = attentions(merged)
    assert attention.config.share_qkv is module.share_qkv
    assert attention.config.share_kernel is (module.values == "shared")
    assert attention.shift.weight.dtype is torch.float32
    pair = "rigid + soft merged"
    if module.values != "shared":
        rigid = "rigid_of_values" if module.values == "apart" else "rigid"
        pair = f"rigid + soft and {rigid} + soft_of_values merged"
    assert pair in found.why


def test_weights_are_rounded_once(scrambled: Any) -> None:
    module = scrambled(Theirs())
    (attention,) = attentions(outcome(module, maps(module))[0])
    exact = module.rigid.weight.double() + module.soft.weight.double()
    assert torch.equal(attention.shift.weight, exact.float())


def test_the_taps_of_the_fused_kernel_are_in_the_order_of_this_package(scrambled: Any) -> None:
    module = scrambled(Theirs(turned=True))
    with torch.no_grad():
        module.soft.weight.zero_()
    (attention,) = attentions(outcome(module, maps(module))[0])
    assert torch.equal(attention.shift.weight, shift_kernel(DIM // HEADS, 3))


LEFT: dict[str, dict[str, Any]] = {
    "padding": {"padding_mode": "circular"},
    "a non-linearity on a path": {"path": torch.relu},
    "bounded logits": {"logits": lambda x: x.clamp(-0.5, 0.5)},
    "masked taps": {"logits": lambda x: F.pad(x[:, :, :8], (0, 0, 0, 0, 0, 1), value=-9)},
    "a factor that nothing tells": {"logits": lambda x: 0.77 * x},
}


@pytest.mark.parametrize("case", LEFT)
def test_what_computes_something_else_is_left_and_said_so(case: str, scrambled: Any) -> None:
    module = scrambled(Theirs(**LEFT[case]))
    merged, (found,) = outcome(module, maps(module))
    assert not attentions(merged)
    assert found == Match("", "left", found.why)
    assert "computes something else" in found.why


class Around(nn.Module):
    """What only passes maps on to an attention, under two names of it."""

    def __init__(self, attention: nn.Module, forward: Callable[..., Tensor]) -> None:
        super().__init__()
        self.attention = self.again = attention
        self.run = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def test_it_is_recognised_inside_of_what_only_adds_to_it(scrambled: Any) -> None:
    module = scrambled(Around(Theirs(), lambda m, x: x + m.attention(x) * m.again(x)))
    merged, found = outcome(module, maps(module.attention))
    assert [(entry.name, entry.action) for entry in found] == [("attention", "matched")]
    assert merged.attention is merged.again


def test_other_weights_beside_it_stay_as_they_are(scrambled: Any) -> None:
    module = scrambled(nn.Sequential(nn.Conv2d(3, DIM, 1), Theirs(), nn.BatchNorm2d(DIM)))
    merged, found = outcome(module, torch.randn(1, 3, 5, 6))
    assert [(entry.name, entry.action) for entry in found] == [("1", "matched")]
    assert torch.equal(merged[0].weight, module[0].weight)


class Pair(Theirs):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x) + y


@pytest.mark.parametrize(
    ("attention", "run", "why"),
    [
        (Pair, lambda m, x: m.attention(x, x), "does not map one tensor"),
        (Theirs, lambda m, x: x + m.attention(x=x), "does not map one tensor"),
        (Theirs, lambda m, x: x + m.attention.forward(x), "not called as a module"),
        (Theirs, lambda m, x: m.attention(x) * m.attention.factor, "has no attribute 'factor'"),
    ],
)
def test_what_cannot_be_replaced_is_left_and_said_so(
    attention: Any, run: Any, why: str, scrambled: Any
) -> None:
    module = scrambled(Around(attention(), run))
    merged, (found,) = outcome(module, maps(module.attention))
    assert (found.name, found.action) == ("attention", "left")
    assert why in found.why
    assert not attentions(merged)


def test_a_module_that_knows_one_size_is_asked_at_that_size(scrambled: Any) -> None:
    def strict(m: Any, x: Tensor) -> Tensor:
        assert tuple(x.shape) == (1, DIM, 5, 6)
        return x + m.attention(x)

    module = scrambled(Around(Theirs(logits=lambda x: x.reshape(1, HEADS, 9, 5, 6)), strict))
    _, (found,) = outcome(module, maps(module.attention))
    assert found.action == "matched"


def test_modules_of_this_package_are_left_to_their_own_fusion(scrambled: Any) -> None:
    module = scrambled(nn.Sequential(SlideAttention(AttentionConfig(dim=4, heads=2))))
    assert match_attentions(module, (torch.randn(1, 5, 5, 4),)) == (module, ())
