"""Slide-NAT: Neighborhood Attention Transformer with Slide Attention in its first stages.

Sources: Hassani et al., CVPR 2023, arXiv 2204.07143, whose public implementation (SHI-Labs/
Neighborhood-Attention-Transformer) gives the state-dict names and the sizes of mini, T and S;
Pan et al., CVPR 2023, arXiv 2304.04237, for the replacement. No code of Slide-NAT is public.
Feature maps are (B, H, W, C).

Counts at 224×224 and 1000 classes: `count_parameters` of the unfused model; `count_flops` of the
fused model (FLOPs in billions of multiply-adds), with the hidden products of neighbourhood
attention at 14×14 ("added") and without them; the same of NAT; and the counts in the papers.

| model | params | paper | FLOPs | added | without it | paper | NAT's without it | paper |
|---|---|---|---|---|---|---|---|---|
| Slide-NAT-mini | 20.0 M | – | 2.85 | 0.09 | 2.76 | – | 2.69 | 2.7 |
| Slide-NAT-T | 27.9 M | 28 M | 4.62 | 0.27 | 4.36 | 4.3 | 4.30 | 4.3 |
| Slide-NAT-S | 50.8 M | 51 M | 8.27 | 0.40 | 7.87 | 7.8 | 7.77 | 7.8 |

The FLOPs without the addition are 1 % above the paper's, which equal those of NAT. So the paper
does not seem to count all depthwise convolutions of Slide Attention (0.16 G in -T, 0.24 G in -S).

Choices that the paper leaves open:
- slide stages: 1 and 2, as in the published Slide-Swin. With one, FLOPs would be 4.33 and 7.83,
  and parameters the same 27.9 M and 50.8 M. The keys of a checkpoint determine them;
- k = 3 in slide stages, as in the published Slide-Swin, and NAT's 7 in the others;
- sizes of mini: those of NAT-mini, since the paper does not list it. Heads, MLP ratios (3, in -S 2)
  and layer scale (in -S only) are those of NAT.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from slide_deploy.errors import ArchitectureError
from slide_deploy.models.backbone import (
    Backbone,
    Block,
    DoublingConfig,
    PatchEmbed,
    Stage,
    staged_maps,
)
from slide_deploy.models.config_inference import (
    block_counts,
    check_kernel,
    given_size,
    head_classes,
    reading_keys,
    with_given,
)
from slide_deploy.models.family import Family, InferredConfig
from slide_deploy.models.neighborhood_attention import NeighborhoodAttention

__all__ = ["FAMILY", "SlideNat", "SlideNatConfig", "slide_nat_mini", "slide_nat_s", "slide_nat_t"]


@dataclass(frozen=True, kw_only=True)
class SlideNatConfig(DoublingConfig):
    """Sizes of a Slide-NAT; image and maps in pixels, (height, width).

    `kernel_size` is Slide Attention's, `neighborhood` that of the later stages.
    """

    slide_stages: int = 2
    neighborhood: int = 7
    mlp_ratio: float = 3.0
    layer_scale: bool = False

    def resolution(self, stage: int) -> tuple[int, int]:
        """Height and width of a stage's feature map."""
        height, width = self.image_size
        for _ in range(stage + 2):
            height, width = -(-height // 2), -(-width // 2)
        return height, width

    def check(self) -> None:
        """Raise ArchitectureError if the sizes are not compatible."""
        if min(self.image_size) < 1:
            raise ArchitectureError(
                f"image size {self.image_size[0]}x{self.image_size[1]} is empty"
            )
        if len(self.heads) != len(self.depths):
            raise ArchitectureError(
                f"{len(self.depths)} stages, but {len(self.heads)} numbers of heads"
            )
        super().check()
        check_kernel(self.neighborhood, "neighborhood")


def _tokenizer(config: SlideNatConfig) -> PatchEmbed:
    """Image (B, 3, H, W) → tokens (B, ⌈H/4⌉, ⌈W/4⌉, C)."""
    half, dim = config.embed_dim // 2, config.embed_dim
    proj = nn.Sequential(
        nn.Conv2d(config.in_channels, half, 3, stride=2, padding=1),
        nn.Conv2d(half, dim, 3, stride=2, padding=1),
    )
    return PatchEmbed(proj, nn.LayerNorm(dim))


class Downsampler(nn.Module):
    """Half the resolution, twice the channels: (B, H, W, C) → (B, ⌈H/2⌉, ⌈W/2⌉, 2C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Conv2d(dim, 2 * dim, 3, stride=2, padding=1, bias=False)
        self.norm = nn.LayerNorm(2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.reduction(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


def _attention(config: SlideNatConfig, stage: int) -> nn.Module:
    if stage < config.slide_stages:
        return config.slide_attention(stage)
    return NeighborhoodAttention(
        config.dim(stage),
        config.heads[stage],
        config.neighborhood,
        config.resolution(stage),
        qkv_bias=config.qkv_bias,
        qk_scale=config.qk_scale,
    )


class ScalableBlock(Block):
    """A block with Slide or neighbourhood attention, and optional layer scale."""

    def __init__(self, config: SlideNatConfig, stage: int) -> None:
        dim = config.dim(stage)
        super().__init__(dim, _attention(config, stage), config.mlp(stage))
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


def _level(config: SlideNatConfig, stage: int) -> Stage:
    last = stage == len(config.depths) - 1
    blocks = (ScalableBlock(config, stage) for _ in range(config.depths[stage]))
    return Stage(blocks, None if last else Downsampler(config.dim(stage)))


class SlideNat(Backbone):
    """Image (B, 3, H, W) → logits (B, classes), or pooled features without a head."""

    def __init__(self, config: SlideNatConfig) -> None:
        super().__init__(config)
        self.patch_embed = _tokenizer(config)
        self.levels = nn.ModuleList(_level(config, stage) for stage in range(len(config.depths)))
        self.add_head()

    def maps(self, x: Tensor) -> list[Tensor]:
        return staged_maps(self.levels, self.patch_embed(x))


def _published(embed_dim: int, depth: int, heads: tuple[int, ...], **sizes: Any) -> SlideNat:
    depths = (3, 4, depth, 5)
    return SlideNat(
        SlideNatConfig(
            image_size=(224, 224), embed_dim=embed_dim, depths=depths, heads=heads, **sizes
        )
    )


def slide_nat_mini(num_classes: int = 1000) -> SlideNat:
    """Slide-NAT-mini at 224×224; the paper gives no counts for it."""
    return _published(64, 6, (2, 4, 8, 16), num_classes=num_classes)


def slide_nat_t(num_classes: int = 1000) -> SlideNat:
    """Slide-NAT-T at 224×224: 28 M parameters, 4.3 GFLOPs in the paper."""
    return _published(64, 18, (2, 4, 8, 16), num_classes=num_classes)


def slide_nat_s(num_classes: int = 1000) -> SlideNat:
    """Slide-NAT-S at 224×224: 51 M parameters, 7.8 GFLOPs in the paper."""
    heads = (3, 6, 12, 24)
    return _published(96, 18, heads, num_classes=num_classes, mlp_ratio=2.0, layer_scale=True)


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
        image_size=given_size(config, image_size, "the weights of a Slide-NAT do not depend on it"),
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
    notes = () if "qk_scale" in (config or {}) else ("assumed: qk_scale d^-0.5",)
    return InferredConfig(with_given(inferred, config), notes)


FAMILY = Family(
    name="slide-nat",
    config_type=SlideNatConfig,
    recognises=_recognises,
    recognise=_recognise,
    build=SlideNat,
)
