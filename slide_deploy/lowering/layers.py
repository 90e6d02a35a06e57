"""Layers of lowerings: linear maps, 1×1 convolutions, and exact shifts."""

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
    "linear",
    "pointwise",
    "repeat_taps",
    "slot_bias",
    "spread_heads",
    "static_size",
]

# The number of channels in a block of vector units and blocked layouts.
BLOCK = 16


def linear(projection: Projection, dtype: torch.dtype) -> nn.Linear:
    """The projection on tokens, rounded to `dtype`."""
    out, width = projection.weight.shape
    # On the meta device, because the weights are assigned and need no initial values.
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


def repeat_taps(weight: Tensor, slots: int) -> Tensor:
    """(…, taps) → (…, slots): slot s has tap s mod taps, so that unused slots repeat taps.

    A tap in n slots has n equal logits. `slot_bias` lowers each by log n, so that their total
    weight is that of the tap: n · exp(l − log n) = exp(l). Softmax and weighted sum equal those of
    the taps, for any weights and inputs. No slot needs a mask with a large constant, which would
    exceed the range of float16 or of an 8-bit tensor.
    """
    return weight[..., torch.arange(slots) % weight.shape[-1]]


def slot_bias(taps: int, slots: int) -> Tensor:
    """−log n of each slot, shape (slots), if its tap is in n slots; see `repeat_taps`."""
    tap = torch.arange(slots) % taps
    return -((slots - 1 - tap) // taps + 1).double().log()


def spread_heads(weight: Tensor, heads: int) -> Tensor:
    """A head's weight (out, in), repeated for the groups of a convolution, (h·out, in)."""
    return weight.repeat(heads, 1)


class Shift(nn.Module):
    """y(p) = x(p + offset), zero outside: a depthwise convolution with one weight of 1.

    The kernel has the smallest possible size, so padding is on one side only.
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
    """The sum; terms are computed one by one, so that only one is in memory at a time."""
    return functools.reduce(torch.add, terms)


def static_size(x: Tensor) -> tuple[int, int]:
    """H and W of (B, H, W, C) as plain numbers, which are constants in a trace."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TracerWarning)
        return int(x.shape[1]), int(x.shape[2])


def _constant(value: Tensor, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(value.to(dtype).contiguous(), requires_grad=False)
