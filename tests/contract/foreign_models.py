"""Custom models with Slide Attention under other names and with other layouts."""

from __future__ import annotations

import json
import os

import torch
from torch import Tensor, nn

from slide_deploy.models.slide_attention import shift_kernel
from slide_deploy.models.slide_pvt import SlidePvt, SlidePvtConfig


def depthwise(channels: int, side: int, padding_mode: str = "zeros") -> nn.Conv2d:
    return nn.Conv2d(
        *(channels, channels * side**2, side),
        padding=side // 2,
        groups=channels,
        padding_mode=padding_mode,
    )


class DatSlideAttention(nn.Module):
    """The DAT repository's module, written as its paper has it: on tensors of rank 6."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        ka: int = 3,
        dim_reduction: int = 1,
        share_qkv: bool = False,
        share_dwc_kernel: bool = True,
        rpb: bool = True,
    ) -> None:
        super().__init__()
        inner = dim // dim_reduction
        self.heads, self.side, self.share_qkv = num_heads, ka, share_qkv
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, inner if share_qkv else 3 * inner)
        self.proj = nn.Linear(inner, dim)
        depth = inner // num_heads
        self.dep_conv = depthwise(depth, ka)
        self.dep_conv.weight = nn.Parameter(shift_kernel(depth, ka), requires_grad=False)
        self.dep_conv1 = depthwise(depth, ka)
        self.dep_conv2 = None if share_dwc_kernel else depthwise(depth, ka)
        table = torch.zeros(1, num_heads, 1, ka**2, 1, 1)
        self.relative_position_bias_table = nn.Parameter(table) if rpb else None

    def queries(self, q: Tensor) -> Tensor:
        return q * self.scale

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        heads, taps = self.heads, self.side**2
        qkv = self.qkv(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        qkv = qkv.reshape(batch * heads, -1, height, width)
        q, k, v = (qkv, qkv, qkv) if self.share_qkv else qkv.chunk(3, 1)
        own = self.dep_conv1 if self.dep_conv2 is None else self.dep_conv2
        k = self.dep_conv(k) + self.dep_conv1(k)
        v = self.dep_conv(v) + own(v)
        k = k.view(batch, heads, -1, taps, height, width)
        v = v.view(batch, heads, -1, taps, height, width)
        q = self.queries(q).reshape(batch, heads, -1, 1, height, width)
        if self.relative_position_bias_table is not None:
            k = k + self.relative_position_bias_table
        attention = (q * k).sum(2, keepdim=True).softmax(3)
        out = (attention * v).sum(3).reshape(batch, -1, height, width)
        return self.proj(out.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class CosineDat(DatSlideAttention):
    """One that compares directions: the parts of Slide Attention, but another attention."""

    def queries(self, q: Tensor) -> Tensor:
        return nn.functional.normalize(q, dim=1)


def cosine_dat() -> CosineDat:
    return CosineDat(**json.loads(os.environ["DAT_ARGUMENTS"]))


def golden_dat() -> DatSlideAttention:
    """The factory of the golden modules: its arguments come from where their owner keeps them."""
    return DatSlideAttention(**json.loads(os.environ["DAT_ARGUMENTS"]))


class ConvBnSilu(nn.Sequential):
    def __init__(self, channels: int, out: int, side: int = 1, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels, out, side, stride, side // 2, bias=False),
            nn.BatchNorm2d(out),
            nn.SiLU(),
        )


class NeighbourMixer(nn.Module):
    """Slide Attention as detectors carry it: 1×1 convolutions, no rank above 4, own names."""

    def __init__(self, channels: int, heads: int, padding_mode: str = "zeros") -> None:
        super().__init__()
        self.heads, depth = heads, channels // heads
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.rolls = depthwise(depth, 3)
        self.rolls.weight = nn.Parameter(shift_kernel(depth, 3), requires_grad=False)
        self.warps = depthwise(depth, 3, padding_mode)
        self.to_out = nn.Conv2d(channels, channels, 1)

    def shifted(self, x: Tensor) -> Tensor:
        return self.warps(x) + self.rolls(x)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        depth = channels // self.heads
        q, k, v = self.to_qkv(x).reshape(-1, 3 * depth, height, width).chunk(3, 1)
        k = self.shifted(k).reshape(-1, depth, 9, height * width)
        v = self.shifted(v).reshape(-1, depth, 9, height * width)
        logits = (q.reshape(-1, depth, 1, height * width) * k).sum(1) * depth**-0.5
        out = (logits.softmax(1)[:, None] * v).sum(2)
        return self.to_out(out.reshape(batch, channels, height, width))


class Detector(nn.Module):
    """Two scales of a YOLO-like detector, Slide Attention inside a C2f-like block."""

    def __init__(self, padding_mode: str = "zeros") -> None:
        super().__init__()
        self.stem = ConvBnSilu(3, 8, 3, 2)
        self.split = ConvBnSilu(8, 16)
        self.mixer = NeighbourMixer(8, 2, padding_mode)
        self.merge = ConvBnSilu(24, 16)
        self.down = ConvBnSilu(16, 16, 3, 2)
        self.heads = nn.ModuleList(nn.Conv2d(16, 5, 1) for _ in range(2))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        first, second = self.split(self.stem(image)).chunk(2, 1)
        p3 = self.merge(torch.cat([first, second, second + self.mixer(second)], 1))
        p4 = self.down(p3)
        return {"p3": self.heads[0](p3), "p4": self.heads[1](p4)}


def unfusable_detector() -> Detector:
    """The same with a learned path that wraps around at the borders: not one convolution."""
    return Detector("circular")


class Segmenter(nn.Module):
    """A head on the features of a Slide-PVT of this package."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = SlidePvt(
            SlidePvtConfig(
                image_size=(32, 32),
                position_size=(32, 32),
                embed_dims=(4, 8, 8, 8),
                depths=(1, 1, 1, 1),
                heads=(1, 2, 2, 2),
                mlp_ratios=(2.0, 2.0, 2.0, 2.0),
                sr_ratios=(1, 1, 2, 1),
                slide_stages=2,
                num_classes=0,
            )
        )
        self.laterals = nn.ModuleList(nn.Conv2d(size, 6, 1) for size in (4, 8, 8, 8))
        self.classify = nn.Conv2d(6, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        maps = self.backbone.forward_features(image)
        total = self.laterals[0](maps[0])
        for lateral, features in zip(list(self.laterals)[1:], maps[1:], strict=True):
            total = total + nn.functional.interpolate(
                lateral(features), size=total.shape[2:], mode="nearest"
            )
        return self.classify(total)
