"""Slide Attention, unfused (two shift convolutions) and fused (one depthwise convolution).

Source: Pan et al., "Slide-Transformer: Hierarchical Vision Transformer with Local
Self-Attention", CVPR 2023, arXiv 2304.04237; the reduced, shared and unshared variants
follow the module of the same authors' DAT repository. State-dict names are the public ones.

All tensors in `forward` have at most rank 4; Core ML refuses more than 5.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slide_deploy.models.shapes import shapes_only

__all__ = [
    "AttentionConfig",
    "FusedSlideAttention",
    "LocalAttention",
    "SlideAttention",
    "shift_kernel",
]


@dataclass(frozen=True)
class AttentionConfig:
    """Sizes and variant of one Slide Attention module.

    With `reduction` the attention has `dim / reduction` channels; with `share_kernel=False` values
    have their own learned shift; with `share_qkv` one projection computes q, k and v. The defaults
    are the paper's module.
    """

    dim: int
    heads: int
    kernel_size: int = 3
    qkv_bias: bool = True
    qk_scale: float | None = None
    reduction: int = 1
    position_bias: bool = True
    share_kernel: bool = True
    share_qkv: bool = False

    @property
    def inner(self) -> int:
        """Channels of all heads."""
        return self.dim // self.reduction

    @property
    def head_dim(self) -> int:
        """Channels of one head."""
        return self.inner // self.heads

    @property
    def taps(self) -> int:
        """The number of neighbours that a pixel attends to."""
        return self.kernel_size**2

    @property
    def scale(self) -> float:
        """Factor on q, which depends on the width before the reduction."""
        return self.qk_scale or (self.dim // self.heads) ** -0.5


def shift_kernel(channels: int, kernel_size: int) -> Tensor:
    """One-hot kernels of the fixed shift, shape (channels·k², 1, k, k).

    Output channel `c·k² + j` copies the neighbour at row `j // k`, column `j % k`.
    """
    taps = kernel_size * kernel_size
    if shapes_only():
        return torch.empty(channels * taps, 1, kernel_size, kernel_size)
    return torch.eye(taps).reshape(taps, 1, kernel_size, kernel_size).repeat(channels, 1, 1, 1)


class LocalAttention(nn.Module):
    """Projections, position bias, and attention over k² shifted taps.

    Subclasses shift keys and values: (B·h, d, H, W) → (B·h, d·k², H, W), channel-major (output
    channel `c·k² + j` is tap j of channel c).
    """

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.config = config
        self.qkv = nn.Linear(
            config.dim, config.inner * (1 if config.share_qkv else 3), bias=config.qkv_bias
        )
        self.proj = nn.Linear(config.inner, config.dim)
        self.relative_position_bias_table: nn.Parameter | None = None
        if config.position_bias:
            table = torch.zeros(1, config.heads, 1, config.taps, 1, 1)
            self.relative_position_bias_table = nn.Parameter(table)

    def shift_keys(self, keys: Tensor) -> Tensor:
        raise NotImplementedError

    def shift_values(self, values: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Attend within k × k neighbourhoods; (B, H, W, C) → (B, H, W, C)."""
        _, height, width, _ = x.shape
        config, pixels = self.config, height * width
        heads, depth, taps = config.heads, config.head_dim, config.taps

        # The 3·inner outputs are split head first: head i owns q, k, v of its own d channels.
        qkv = self.qkv(x).permute(0, 3, 1, 2)
        if config.share_qkv:
            q = k = v = qkv.reshape(-1, depth, height, width)
        else:
            q, k, v = qkv.reshape(-1, 3 * depth, height, width).chunk(3, dim=1)

        keys = self.shift_keys(k).reshape(-1, heads * depth, taps, pixels)
        if self.relative_position_bias_table is not None:
            # Added to the keys, not to the logits: every channel of a tap has the same bias.
            bias = self.relative_position_bias_table.reshape(heads, 1, taps, 1)
            keys = keys + bias.expand(heads, depth, taps, 1).reshape(1, heads * depth, taps, 1)
        queries = (q * config.scale).reshape(-1, heads * depth, 1, pixels)
        logits = (queries * keys).reshape(-1, depth, taps, pixels).sum(dim=1)
        attention = logits.softmax(dim=1).reshape(-1, 1, taps, pixels)

        values = self.shift_values(v).reshape(-1, depth, taps, pixels)
        out = (attention * values).sum(dim=2).reshape(-1, config.inner, height, width)
        return self.proj(out.permute(0, 2, 3, 1))


def _depthwise(config: AttentionConfig) -> nn.Conv2d:
    channels, side = config.head_dim, config.kernel_size
    return nn.Conv2d(channels, channels * config.taps, side, padding=side // 2, groups=channels)


class SlideAttention(LocalAttention):
    """The unfused module: fixed one-hot shifts plus a learned depthwise convolution.

    Keys use `dep_conv + dep_conv1`; values the same pair, or `dep_conv + dep_conv2` if the kernels
    are not shared.
    """

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__(config)
        self.dep_conv = _depthwise(config)
        one_hot = shift_kernel(config.head_dim, config.kernel_size)
        self.dep_conv.weight = nn.Parameter(one_hot, requires_grad=False)
        self.dep_conv1 = _depthwise(config)
        if not config.share_kernel:
            self.dep_conv2 = _depthwise(config)

    def shift_keys(self, keys: Tensor) -> Tensor:
        return self.dep_conv(keys) + self.dep_conv1(keys)

    def shift_values(self, values: Tensor) -> Tensor:
        learned = self.dep_conv1 if self.config.share_kernel else self.dep_conv2
        return self.dep_conv(values) + learned(values)


class FusedSlideAttention(LocalAttention):
    """The fused module: both convolutions merged into `shift` (and `shift_v` if not shared)."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__(config)
        self.shift = _depthwise(config)
        if not config.share_kernel:
            self.shift_v = _depthwise(config)

    def shift_keys(self, keys: Tensor) -> Tensor:
        return self.shift(keys)

    def shift_values(self, values: Tensor) -> Tensor:
        return self.shift(values) if self.config.share_kernel else self.shift_v(values)
