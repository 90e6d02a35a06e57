"""Slide-NAT: Neighborhood Attention Transformer with Slide Attention in its first stages.

Sources: Hassani et al., CVPR 2023, arXiv 2204.07143, whose public implementation (SHI-Labs/
Neighborhood-Attention-Transformer) gives the state-dict names and the sizes of mini, T and S;
Pan et al., CVPR 2023, arXiv 2304.04237, for the replacement. No code of Slide-NAT is public.
Feature maps travel as (B, H, W, C).

Counts at 224×224 and 1000 classes: `count_parameters` of the training form, `count_flops` of the
fused one (FLOPs in billions of multiply-adds), of these what only the dense formulation of
neighbourhood attention adds at 14×14, the same of NAT itself, and what the papers print.

| model | params | printed | FLOPs | added | without it | printed | NAT's without it | printed |
|---|---|---|---|---|---|---|---|---|
| Slide-NAT-mini | 20.0 M | – | 2.85 | 0.09 | 2.76 | – | 2.69 | 2.7 |
| Slide-NAT-T | 27.9 M | 28 M | 4.62 | 0.27 | 4.36 | 4.3 | 4.30 | 4.3 |
| Slide-NAT-S | 50.8 M | 51 M | 8.27 | 0.40 | 7.87 | 7.8 | 7.77 | 7.8 |

The FLOPs without the addition are 1 % above the printed ones, which equal NAT's own: the depthwise
convolutions of Slide Attention (0.16 G in -T, 0.24 G in -S) seem to be counted in part or not.

What the paper leaves open, and what is taken here:
- slide stages: 1 and 2, as in the published Slide-Swin. With one, FLOPs would be 4.33 and 7.83,
  and parameters the same 27.9 M and 50.8 M; a checkpoint's keys decide it, not this choice;
- k = 3 in slide stages, as in the published Slide-Swin, and NAT's 7 in the others;
- sizes of mini: NAT-mini's, since the paper has no row for it; heads, MLP ratios (3, in -S 2) and
  layer scale (in -S only) are NAT's everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from slide_deploy.errors import ArchitectureError
from slide_deploy.models.config_inference import (
    block_counts,
    check_heads,
    check_kernel,
    class_specs,
    given_size,
    head_classes,
    image_spec,
    reading_keys,
    with_given,
)
from slide_deploy.models.family import Family, InferredConfig
from slide_deploy.models.mlp import Mlp, classifier
from slide_deploy.models.neighborhood_attention import NeighborhoodAttention
from slide_deploy.models.slide_attention import AttentionConfig, SlideAttention

__all__ = ["FAMILY", "SlideNat", "SlideNatConfig", "slide_nat_mini", "slide_nat_s", "slide_nat_t"]


@dataclass(frozen=True)
class SlideNatConfig:
    """Sizes of a Slide-NAT; image and maps in pixels, (height, width).

    `kernel_size` is Slide Attention's, `neighborhood` that of the later stages.
    """

    image_size: tuple[int, int]
    embed_dim: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    slide_stages: int = 2
    num_classes: int = 1000
    kernel_size: int = 3
    neighborhood: int = 7
    in_channels: int = 3
    mlp_ratio: float = 3.0
    qkv_bias: bool = True
    qk_scale: float | None = None
    layer_scale: bool = False

    def dim(self, stage: int) -> int:
        """Channels of a stage: twice as many as in the one before."""
        return self.embed_dim << stage

    @property
    def features(self) -> int:
        """Channels of the last stage."""
        return self.dim(len(self.depths) - 1)

    def resolution(self, stage: int) -> tuple[int, int]:
        """Height and width of the feature map that a stage works on."""
        height, width = self.image_size
        for _ in range(stage + 2):
            height, width = -(-height // 2), -(-width // 2)
        return height, width

    def check(self) -> None:
        """Raise ArchitectureError where the sizes cannot work together."""
        if min(self.image_size) < 1:
            raise ArchitectureError(f"no image is {self.image_size[0]}x{self.image_size[1]}")
        if len(self.heads) != len(self.depths):
            raise ArchitectureError(
                f"{len(self.depths)} stages, but {len(self.heads)} numbers of heads"
            )
        check_heads(self.heads, [self.dim(stage) for stage in range(len(self.heads))])
        check_kernel(self.kernel_size)
        check_kernel(self.neighborhood, "neighborhood")


class Tokenizer(nn.Module):
    """Image (B, 3, H, W) → tokens (B, ⌈H/4⌉, ⌈W/4⌉, C)."""

    def __init__(self, config: SlideNatConfig) -> None:
        super().__init__()
        half, dim = config.embed_dim // 2, config.embed_dim
        self.proj = nn.Sequential(
            nn.Conv2d(config.in_channels, half, 3, stride=2, padding=1),
            nn.Conv2d(half, dim, 3, stride=2, padding=1),
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class Downsampler(nn.Module):
    """Half the resolution, twice the channels: (B, H, W, C) → (B, ⌈H/2⌉, ⌈W/2⌉, 2C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Conv2d(dim, 2 * dim, 3, stride=2, padding=1, bias=False)
        self.norm = nn.LayerNorm(2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.reduction(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class Block(nn.Module):
    """Pre-norm transformer block with Slide or neighbourhood attention, scaled where asked."""

    def __init__(self, config: SlideNatConfig, stage: int) -> None:
        super().__init__()
        dim, heads = config.dim(stage), config.heads[stage]
        self.norm1 = nn.LayerNorm(dim)
        self.attn: nn.Module
        if stage < config.slide_stages:
            self.attn = SlideAttention(
                AttentionConfig(dim, heads, config.kernel_size, config.qkv_bias, config.qk_scale)
            )
        else:
            self.attn = NeighborhoodAttention(
                dim,
                heads,
                config.neighborhood,
                config.resolution(stage),
                qkv_bias=config.qkv_bias,
                qk_scale=config.qk_scale,
            )
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio))
        self.gamma1: nn.Parameter | None = None
        self.gamma2: nn.Parameter | None = None
        if config.layer_scale:
            self.gamma1 = nn.Parameter(torch.full((dim,), 1e-5))
            self.gamma2 = nn.Parameter(torch.full((dim,), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        x = x + _scaled(self.attn(self.norm1(x)), self.gamma1)
        return x + _scaled(self.mlp(self.norm2(x)), self.gamma2)


def _scaled(x: Tensor, gamma: Tensor | None) -> Tensor:
    return x if gamma is None else gamma * x


class Level(nn.Module):
    """Blocks of one resolution; gives their map and, downsampled, what the next level takes."""

    def __init__(self, config: SlideNatConfig, stage: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(config, stage) for _ in range(config.depths[stage])))
        last = stage == len(config.depths) - 1
        self.downsample = nn.Identity() if last else Downsampler(config.dim(stage))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.blocks(x)
        return x, self.downsample(x)


class SlideNat(nn.Module):
    """Image (B, 3, H, W) → logits (B, classes), or pooled features where there is no head."""

    def __init__(self, config: SlideNatConfig) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.patch_embed = Tokenizer(config)
        self.levels = nn.ModuleList(Level(config, stage) for stage in range(len(config.depths)))
        self.norm = nn.LayerNorm(config.features)
        self.head = classifier(config.features, config.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self._maps(x)[-1]).mean(dim=(1, 2)))

    def forward_features(self, x: Tensor) -> tuple[Tensor, ...]:
        """What each level's last block gives, not downsampled, without norm: (B, C, H, W)."""
        return tuple(level.permute(0, 3, 1, 2) for level in self._maps(x))

    def _maps(self, x: Tensor) -> list[Tensor]:
        x = self.patch_embed(x)
        maps = []
        for level in self.levels:
            stage, x = level(x)
            maps.append(stage)
        return maps


def slide_nat_mini(num_classes: int = 1000) -> SlideNat:
    """Slide-NAT-mini at 224×224; the paper gives no counts for it."""
    depths, heads = (3, 4, 6, 5), (2, 4, 8, 16)
    return SlideNat(SlideNatConfig((224, 224), 64, depths, heads, num_classes=num_classes))


def slide_nat_t(num_classes: int = 1000) -> SlideNat:
    """Slide-NAT-T at 224×224: 28 M parameters, 4.3 GFLOPs in the paper."""
    depths, heads = (3, 4, 18, 5), (2, 4, 8, 16)
    return SlideNat(SlideNatConfig((224, 224), 64, depths, heads, num_classes=num_classes))


def slide_nat_s(num_classes: int = 1000) -> SlideNat:
    """Slide-NAT-S at 224×224: 51 M parameters, 7.8 GFLOPs in the paper."""
    config = SlideNatConfig(
        image_size=(224, 224),
        embed_dim=96,
        depths=(3, 4, 18, 5),
        heads=(3, 6, 12, 24),
        num_classes=num_classes,
        mlp_ratio=2.0,
        layer_scale=True,
    )
    return SlideNat(config)


def _recognises(state: Mapping[str, Tensor]) -> bool:
    return "levels.0.blocks.0.attn.dep_conv.weight" in state and (
        "patch_embed.proj.0.weight" in state
    )


def _recognise(
    state: Mapping[str, Tensor],
    config: Mapping[str, Any] | None,
    image_size: tuple[int, int] | None,
) -> InferredConfig:
    with reading_keys("Slide-NAT"):
        embed_dim = state["patch_embed.proj.1.weight"].shape[0]
        in_channels = state["patch_embed.proj.0.weight"].shape[1]
        depths = block_counts(state, r"levels\.(\d+)\.blocks\.(\d+)\.")
        heads, neighborhoods = [], []
        for level in range(len(depths)):
            attention = f"levels.{level}.blocks.0.attn"
            if (rpb := state.get(f"{attention}.rpb")) is not None:
                heads.append(rpb.shape[0])
                neighborhoods.append((rpb.shape[1] + 1) // 2)
            else:
                heads.append(state[f"{attention}.relative_position_bias_table"].shape[1])
        hidden = state["levels.0.blocks.0.mlp.fc1.weight"].shape[0]
        kernel_size = state["levels.0.blocks.0.attn.dep_conv.weight"].shape[-1]
    inferred = SlideNatConfig(
        image_size=given_size(config, image_size, "nothing in a Slide-NAT's weights depends on it"),
        embed_dim=embed_dim,
        depths=depths,
        heads=tuple(heads),
        slide_stages=len(depths) - len(neighborhoods),
        num_classes=head_classes(state),
        kernel_size=kernel_size,
        neighborhood=max(neighborhoods, default=7),
        in_channels=in_channels,
        mlp_ratio=hidden / embed_dim,
        qkv_bias="levels.0.blocks.0.attn.qkv.bias" in state,
        layer_scale="levels.0.blocks.0.gamma1" in state,
    )
    notes = () if "qk_scale" in (config or {}) else ("not in the file: qk_scale taken as d^-0.5",)
    return InferredConfig(with_given(inferred, config), notes)


FAMILY = Family(
    name="slide-nat",
    config_type=SlideNatConfig,
    recognises=_recognises,
    recognise=_recognise,
    build=SlideNat,
    input_spec=image_spec,
    output_specs=class_specs,
)
