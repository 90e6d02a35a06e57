"""Slide-CSwin: CSWin Transformer with Slide Attention in its first stages.

Sources: Dong et al., CVPR 2022, arXiv 2107.00652, whose public implementation (microsoft/
CSWin-Transformer) gives the state-dict names and the sizes of -T, -S and -B; Pan et al., CVPR
2023, arXiv 2304.04237, for the replacement. No code of Slide-CSwin is public. A slide stage has
`stageS.N.attn.{qkv,proj,dep_conv,…}` instead of CSWin's `stageS.N.{qkv,proj,attns.…}`.
Feature maps are (B, H, W, C).

Counts at 224×224 and 1000 classes: `count_parameters` of the unfused model, `count_flops` of the
fused model (FLOPs in billions of multiply-adds), the same of CSWin, and the counts in the papers.

| model | params | paper | FLOPs | paper | CSWin's FLOPs | paper |
|---|---|---|---|---|---|---|
| Slide-CSwin-T | 22.3 M | – | 4.34 | – | 4.32 | 4.3 |
| Slide-CSwin-S | 34.7 M | 35 M | 6.83 | 6.9 | 6.80 | 6.9 |
| Slide-CSwin-B | 77.4 M | 78 M | 15.00 | 15.0 | 14.96 | 15.0 |

CSWin's own counts (22.3, 34.6 and 77.4 M here; 23, 35 and 78 M in its paper) are rounded up in its
paper, and CSWin-S differs by the same 0.1 G.

Choices that the paper leaves open:
- slide stages: 1 and 2, as in the published Slide-Swin. The counts do not determine them (-S has
  6.82 with one, 6.83 with two, and 34.7 M in both cases); the keys of a checkpoint do;
- sizes of -T: those of CSWin-T (depths 1, 2, 21, 1), since the paper does not list it;
- heads of a slide stage: those of CSWin, without a split into two branches;
- no LePE in a slide stage, because Slide Attention has its own position bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from slide_deploy.errors import ArchitectureError
from slide_deploy.models.backbone import Backbone, Block, DoublingConfig
from slide_deploy.models.config_inference import (
    block_counts,
    given_size,
    head_classes,
    reading_keys,
    with_given,
)
from slide_deploy.models.family import Family, InferredConfig
from slide_deploy.models.stripe_attention import StripeAttention

__all__ = [
    "FAMILY",
    "SlideCSwin",
    "SlideCSwinConfig",
    "slide_cswin_b",
    "slide_cswin_s",
    "slide_cswin_t",
]

# The published models' stripe widths, at 224 and at 384.
SPLIT_SIZES = (1, 2, 7, 7)
SPLIT_SIZES_384 = (1, 2, 12, 12)


@dataclass(frozen=True, kw_only=True)
class SlideCSwinConfig(DoublingConfig):
    """Sizes of a Slide-CSwin; image and maps in pixels, (height, width).

    `split_sizes` are the widths of each stage's stripes. They are ignored for slide stages and for
    the last stage, which attends to its whole map.
    """

    slide_stages: int = 2
    split_sizes: tuple[int, ...] = SPLIT_SIZES

    def resolution(self, stage: int) -> tuple[int, int]:
        """Height and width of a stage's feature map."""
        height, width = ((size - 3) // 4 + 1 for size in self.image_size)
        for _ in range(stage):
            height, width = -(-height // 2), -(-width // 2)
        return height, width

    def stripes(self, stage: int) -> tuple[tuple[int, int], ...]:
        """Rows and columns of each branch's stripes; a single branch attends to the whole map."""
        height, width = self.resolution(stage)
        split = self.split_sizes[stage]
        last = stage == len(self.depths) - 1
        if last or (height, width) == (split, split):
            return ((height, width),)
        return (height, split), (split, width)

    def check(self) -> None:
        """Raise ArchitectureError if the sizes are not compatible."""
        stages = len(self.depths)
        height, width = self.image_size
        if min(height, width) < 4:
            raise ArchitectureError(
                f"image size {height}x{width} is smaller than a patch", "use a larger --image-size"
            )
        if not len(self.heads) == len(self.split_sizes) == stages:
            raise ArchitectureError(
                f"{stages} stages, but {len(self.heads)} numbers of heads "
                f"and {len(self.split_sizes)} split sizes"
            )
        super().check()
        for stage, heads in enumerate(self.heads):
            branches = 1 if stage < self.slide_stages else len(self.stripes(stage))
            if heads % branches:
                raise ArchitectureError(
                    f"{heads} heads of stage {stage} cannot be shared by two branches"
                )


class CrossShapedBlock(Block):
    """A CSWin block: half of the channels attend in vertical, half in horizontal stripes.

    As in the public implementation the projections belong to the block, not to the attention.
    """

    def __init__(self, config: SlideCSwinConfig, stage: int) -> None:
        dim, heads = config.dim(stage), config.heads[stage]
        super().__init__(dim, None, config.mlp(stage))
        stripes, resolution = config.stripes(stage), config.resolution(stage)
        branches = len(stripes)
        self.qkv = nn.Linear(dim, 3 * dim, bias=config.qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.attns = nn.ModuleList(
            StripeAttention(dim // branches, heads // branches, resolution, stripe, config.qk_scale)
            for stripe in stripes
        )

    def attend(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x)
        if len(self.attns) == 1:
            return self.proj(self.attns[0](qkv))
        # In the order q, k, v, each with the channels of the first branch, then of the second.
        parts = qkv.chunk(6, dim=-1)
        first, second = torch.cat(parts[0::2], dim=-1), torch.cat(parts[1::2], dim=-1)
        return self.proj(torch.cat((self.attns[0](first), self.attns[1](second)), dim=-1))


def _block(config: SlideCSwinConfig, stage: int) -> Block:
    if stage < config.slide_stages:
        return Block(config.dim(stage), config.slide_attention(stage), config.mlp(stage))
    return CrossShapedBlock(config, stage)


class ChannelsLast(nn.Module):
    """(B, C, H, W) → (B, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


class Merge(nn.Module):
    """Half the resolution, twice the channels: (B, H, W, C) → (B, ⌈H/2⌉, ⌈W/2⌉, 2C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, 2 * dim, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class SlideCSwin(Backbone):
    """Image (B, 3, H, W) → logits (B, classes), or pooled features without a head."""

    def __init__(self, config: SlideCSwinConfig) -> None:
        super().__init__(config)
        stages = len(config.depths)
        self.stage1_conv_embed = nn.Sequential(
            nn.Conv2d(config.in_channels, config.embed_dim, 7, stride=4, padding=2),
            ChannelsLast(),
            nn.LayerNorm(config.embed_dim),
        )
        for stage, depth in enumerate(config.depths):
            blocks = nn.Sequential(*(_block(config, stage) for _ in range(depth)))
            self.add_module(f"stage{stage + 1}", blocks)
            if stage < stages - 1:
                self.add_module(f"merge{stage + 1}", Merge(config.dim(stage)))
        self.add_head()

    def maps(self, x: Tensor) -> list[Tensor]:
        x = self.stage1_conv_embed(x)
        maps = []
        for stage in range(1, len(self.config.depths) + 1):
            if stage > 1:
                x = self.get_submodule(f"merge{stage - 1}")(x)
            x = self.get_submodule(f"stage{stage}")(x)
            maps.append(x)
        return maps


def _published(
    embed_dim: int, depths: tuple[int, ...], heads: tuple[int, ...], num_classes: int
) -> SlideCSwin:
    return SlideCSwin(
        SlideCSwinConfig(
            image_size=(224, 224),
            embed_dim=embed_dim,
            depths=depths,
            heads=heads,
            num_classes=num_classes,
        )
    )


def slide_cswin_t(num_classes: int = 1000) -> SlideCSwin:
    """Slide-CSwin-T at 224×224; the paper gives no counts for it."""
    return _published(64, (1, 2, 21, 1), (2, 4, 8, 16), num_classes)


def slide_cswin_s(num_classes: int = 1000) -> SlideCSwin:
    """Slide-CSwin-S at 224×224: 35 M parameters, 6.9 GFLOPs in the paper."""
    return _published(64, (2, 4, 32, 2), (2, 4, 8, 16), num_classes)


def slide_cswin_b(num_classes: int = 1000) -> SlideCSwin:
    """Slide-CSwin-B at 224×224: 78 M parameters, 15.0 GFLOPs in the paper."""
    return _published(96, (2, 4, 32, 2), (4, 8, 16, 32), num_classes)


def _recognises(state: Mapping[str, Tensor]) -> bool:
    return "stage1.0.attn.dep_conv.weight" in state and "stage1_conv_embed.0.weight" in state


def _recognise(
    state: Mapping[str, Tensor],
    config: Mapping[str, Any] | None,
    image_size: tuple[int, int] | None,
) -> InferredConfig:
    with reading_keys("Slide-CSwin"):
        embed_dim, in_channels, _, _ = state["stage1_conv_embed.0.weight"].shape
        depths = block_counts(state, r"stage(\d+)\.(\d+)\.")
        table = state["stage1.0.attn.relative_position_bias_table"]
        hidden = state["stage1.0.mlp.fc1.weight"].shape[0]
        kernel_size = state["stage1.0.attn.dep_conv.weight"].shape[-1]
    stages = range(len(depths))
    size = given_size(config, image_size, "the weights of a Slide-CSwin do not depend on it")
    inferred = SlideCSwinConfig(
        image_size=size,
        embed_dim=embed_dim,
        depths=depths,
        heads=tuple(_heads(state, stage, table.shape[1]) for stage in stages),
        slide_stages=sum(f"stage{stage + 1}.0.attn.dep_conv.weight" in state for stage in stages),
        split_sizes=_split_sizes(size, len(depths)),
        num_classes=head_classes(state),
        kernel_size=kernel_size,
        in_channels=in_channels,
        mlp_ratio=hidden / embed_dim,
        qkv_bias="stage1.0.attn.qkv.bias" in state,
    )
    assumed = {
        "qk_scale": "qk_scale d^-0.5",
        "heads": "heads of the stages without Slide Attention double from stage to stage",
        "split_sizes": "split sizes of the published models "
        f"({', '.join(map(str, inferred.split_sizes))})",
    }
    open_fields = [note for field, note in assumed.items() if field not in (config or {})]
    notes = (f"assumed: {'; '.join(open_fields)}",) if open_fields else ()
    return InferredConfig(with_given(inferred, config), notes)


def _heads(state: Mapping[str, Tensor], stage: int, first: int) -> int:
    table = state.get(f"stage{stage + 1}.0.attn.relative_position_bias_table")
    return first * 2**stage if table is None else table.shape[1]


def _split_sizes(image_size: tuple[int, int], stages: int) -> tuple[int, ...]:
    sizes = SPLIT_SIZES_384 if image_size == (384, 384) else SPLIT_SIZES
    return (*sizes, *[sizes[-1]] * stages)[:stages]


FAMILY = Family(
    name="slide-cswin",
    config_type=SlideCSwinConfig,
    recognises=_recognises,
    recognise=_recognise,
    build=SlideCSwin,
)
