"""Layers that forms are made of: linear maps, 1×1 convolutions, and exact shifts."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.jit import TracerWarning  # type: ignore[attr-defined]

from slide_deploy.lowering.folding import Projection

__all__ = [
    "Shift",
    "add_up",
    "block_slots",
    "depthwise",
    "empty_slot_bias",
    "linear",
    "pointwise",
    "repeat_first_tap",
    "spread_heads",
    "static_size",
]

# Channels that vector units and blocked layouts like to have together.
BLOCK = 16


def linear(projection: Projection, dtype: torch.dtype) -> nn.Linear:
    """The projection on tokens, rounded to `dtype`."""
    out, width = projection.weight.shape
    # Made on the meta device: the weights come from elsewhere, none has to be drawn.
    layer = nn.Linear(width, out, bias=projection.bias is not None, device="meta")
    layer.weight = _constant(projection.weight, dtype)
    if projection.bias is not None:
        layer.bias = _constant(projection.bias, dtype)
    return layer


def pointwise(projection: Projection, dtype: torch.dtype, groups: int = 1) -> nn.Conv2d:
    """The projection as a 1×1 convolution; with groups, weight is (out, in / groups)."""
    out, width = projection.weight.shape
    bias = projection.bias is not None
    layer = nn.Conv2d(width * groups, out, 1, groups=groups, bias=bias, device="meta")
    layer.weight = _constant(projection.weight[:, :, None, None], dtype)
    if projection.bias is not None:
        layer.bias = _constant(projection.bias, dtype)
    return layer


def depthwise(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> nn.Conv2d:
    """One k × k kernel per channel, the same for all heads, from (d, k²); bias is (h, d)."""
    channels, side = bias.numel(), math.isqrt(weight.shape[1])
    layer = nn.Conv2d(channels, channels, side, padding=side // 2, groups=channels, device="meta")
    kernel = weight.repeat(len(bias), 1).reshape(channels, 1, side, side)
    layer.weight, layer.bias = _constant(kernel, dtype), _constant(bias.reshape(-1), dtype)
    return layer


def block_slots(taps: int) -> int:
    """The next multiple of a block."""
    return -(-taps // BLOCK) * BLOCK


def repeat_first_tap(weight: Tensor, slots: int) -> Tensor:
    """(…, taps) → (…, slots): empty slots get the weights of the first tap, and so its logit.

    With `empty_slot_bias` an empty slot's logit is the first tap's less a margin m. The largest
    logit of a row is no smaller than the first tap's, so the empty slots together have at most
    empty · exp(−m) of the softmax, whatever the weights and the input are. No constant larger
    than m enters the logits: float16 holds it, and it hardly widens a quantized range.
    """
    empty = slots - weight.shape[-1]
    return torch.cat((weight, weight[..., :1].expand(*weight.shape[:-1], empty)), dim=-1)


def empty_slot_bias(taps: int, slots: int, dtype: torch.dtype) -> Tensor:
    """Bias of each slot, (slots): 0 for a tap, −m for an empty slot.

    m leaves all empty slots together an eighth of a unit in the last place of `dtype`.
    """
    empty = slots - taps
    margin = math.log(8 * empty / torch.finfo(dtype).eps) if empty else 0.0
    return F.pad(torch.zeros(taps, dtype=torch.float64), (0, empty), value=-margin)


def spread_heads(weight: Tensor, heads: int) -> Tensor:
    """A head's weight (out, in) for every head of a grouped convolution, (h·out, in)."""
    return weight.repeat(heads, 1)


class Shift(nn.Module):
    """y(p) = x(p + offset), zero from outside: a depthwise convolution with one weight of 1.

    The kernel is as small as the offset allows, so padding is on one side only.
    """

    def __init__(
        self, channels: int, down: int, right: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        super().__init__()
        sides = (abs(down) + 1, abs(right) + 1)
        kernel = torch.zeros(channels, 1, *sides, dtype=dtype, device=device)
        kernel[:, :, -1 if down > 0 else 0, -1 if right > 0 else 0] = 1
        self.kernel: Tensor
        self.register_buffer("kernel", kernel)
        self.pads = (max(-right, 0), max(right, 0), max(-down, 0), max(down, 0))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, self.pads), self.kernel, groups=self.kernel.shape[0])


def add_up(terms: Iterable[Tensor]) -> Tensor:
    """The sum; terms are taken one by one, so that only one is alive beside it."""
    return functools.reduce(torch.add, terms)


def static_size(x: Tensor) -> tuple[int, int]:
    """H and W of (B, H, W, C) as plain numbers, which a trace then keeps as constants."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TracerWarning)
        return int(x.shape[1]), int(x.shape[2])


def _constant(value: Tensor, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(value.to(dtype).contiguous(), requires_grad=False)
