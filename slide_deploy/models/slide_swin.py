"""Slide-Swin: Swin Transformer with Slide Attention in its first stages.

Source: Pan et al., CVPR 2023, arXiv 2304.04237; state-dict names are those of the public
implementation. Feature maps are (B, H, W, C).
"""

from __future__ import annotations

import copy
import math
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
    given_size,
    head_classes,
    image_sizes,
    reading_keys,
    with_given,
)
from slide_deploy.models.family import Family, InferredConfig
from slide_deploy.models.folded_window_attention import folded
from slide_deploy.models.window_attention import WindowAttention, shift_mask

__all__ = [
    "FAMILY",
    "SlideSwin",
    "SlideSwinConfig",
    "fold_windows",
    "slide_swin_b",
    "slide_swin_s",
    "slide_swin_t",
]


@dataclass(frozen=True, kw_only=True)
class SlideSwinConfig(DoublingConfig):
    """Sizes of a Slide-Swin; sizes of images and maps in pixels, (height, width)."""

    window_size: int
    patch_size: int = 4
    ape: bool = False
    patch_norm: bool = True

    def resolution(self, stage: int) -> tuple[int, int]:
        """Height and width of a stage's feature map."""
        step = self.patch_size * 2**stage
        return self.image_size[0] // step, self.image_size[1] // step

    def window(self, stage: int) -> int:
        """Size of a stage's windows, at most that of its feature map."""
        return min(self.window_size, *self.resolution(stage))

    def check(self) -> None:
        """Raise ArchitectureError if the sizes are not compatible."""
        last = len(self.depths) - 1
        multiple = self.patch_size * 2**last
        height, width = self.image_size
        name = f"image size {height}x{width}"
        if min(height, width) < multiple or height % multiple or width % multiple:
            raise ArchitectureError(
                f"{name} cannot be divided into patches and halved {last} times",
                f"use an --image-size that is a multiple of {multiple}",
            )
        for stage in range(self.slide_stages, len(self.depths)):
            (rows, columns), window = self.resolution(stage), self.window(stage)
            if rows % window or columns % window:
                raise ArchitectureError(
                    f"{name} gives stage {stage} a {rows}x{columns} map, "
                    f"which is not a multiple of the window size {window}",
                    "set --image-size to the size that the model was trained for",
                )
        super().check()


def _patch_embed(config: SlideSwinConfig) -> PatchEmbed:
    patch, dim = config.patch_size, config.embed_dim
    proj = nn.Conv2d(config.in_channels, dim, patch, stride=patch)
    return PatchEmbed(proj, nn.LayerNorm(dim) if config.patch_norm else nn.Identity())


class PatchMerging(nn.Module):
    """Merge 2×2 neighbours into one token: (B, H, W, C) → (B, H/2, W/2, 2C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        _, height, width, channels = x.shape
        # Order of the neighbours, as (row, column): (0,0), (1,0), (0,1), (1,1).
        x = x.reshape(-1, 2, width // 2, 2 * channels).permute(0, 2, 1, 3)
        x = x.reshape(-1, 2, 2, channels).permute(0, 2, 1, 3)
        x = x.reshape(-1, height // 2, width // 2, 4 * channels)
        return self.reduction(self.norm(x))


class SwinBlock(Block):
    """A block with Slide or window attention; `attn_mask` is that of shifted windows."""

    attn_mask: Tensor | None

    def __init__(self, config: SlideSwinConfig, stage: int, index: int) -> None:
        mask = None
        attn: nn.Module
        if stage < config.slide_stages:
            attn = config.slide_attention(stage)
        else:
            resolution, window = config.resolution(stage), config.window(stage)
            shifts = index % 2 == 1 and min(resolution) > config.window_size
            shift = window // 2 if shifts else 0
            attn = WindowAttention(
                config.dim(stage),
                config.heads[stage],
                window,
                resolution,
                shift,
                qkv_bias=config.qkv_bias,
                qk_scale=config.qk_scale,
            )
            mask = shift_mask(*resolution, window, shift) if shift else None
        super().__init__(config.dim(stage), attn, config.mlp(stage))
        self.register_buffer("attn_mask", mask)

    def attend(self, x: Tensor) -> Tensor:
        return self.attn(x) if self.attn_mask is None else self.attn(x, self.attn_mask)


def _layer(config: SlideSwinConfig, stage: int) -> Stage:
    last = stage == len(config.depths) - 1
    blocks = (SwinBlock(config, stage, index) for index in range(config.depths[stage]))
    return Stage(blocks, None if last else PatchMerging(config.dim(stage)))


class SlideSwin(Backbone):
    """Image (B, 3, H, W) → logits (B, classes), or pooled features without a head."""

    def __init__(self, config: SlideSwinConfig) -> None:
        super().__init__(config)
        self.patch_embed = _patch_embed(config)
        self.absolute_pos_embed: nn.Parameter | None = None
        if config.ape:
            rows, columns = config.resolution(0)
            self.absolute_pos_embed = nn.Parameter(torch.zeros(1, rows * columns, config.embed_dim))
        self.layers = nn.ModuleList(_layer(config, stage) for stage in range(len(config.depths)))
        self.add_head()

    config: SlideSwinConfig

    @property
    def fixes_size(self) -> str:
        return "holds position embeddings of one map" if self.config.ape else ""

    def embed(self, x: Tensor) -> Tensor:
        """Image (B, 3, H, W) → tokens of the first stage, (B, H, W, C)."""
        x = self.patch_embed(x)
        if self.absolute_pos_embed is not None:
            x = x + self.absolute_pos_embed.reshape(1, *x.shape[1:])
        return x

    def maps(self, x: Tensor) -> list[Tensor]:
        return staged_maps(self.layers, self.embed(x))


def _published(embed_dim: int, depth: int, heads: tuple[int, ...], num_classes: int) -> SlideSwin:
    return SlideSwin(
        SlideSwinConfig(
            image_size=(224, 224),
            embed_dim=embed_dim,
            depths=(2, 2, depth, 2),
            heads=heads,
            slide_stages=2,
            window_size=56,
            num_classes=num_classes,
        )
    )


def slide_swin_t(num_classes: int = 1000) -> SlideSwin:
    """Slide-Swin-T at 224×224: 29 M parameters, 4.6 GFLOPs in the paper."""
    return _published(96, 6, (3, 6, 12, 24), num_classes)


def slide_swin_s(num_classes: int = 1000) -> SlideSwin:
    """Slide-Swin-S at 224×224: 51 M parameters, 8.9 GFLOPs in the paper."""
    return _published(96, 18, (3, 6, 12, 24), num_classes)


def slide_swin_b(num_classes: int = 1000) -> SlideSwin:
    """Slide-Swin-B at 224×224: 89 M parameters, 15.5 GFLOPs in the paper."""
    return _published(128, 18, (4, 8, 16, 32), num_classes)


def fold_windows(model: nn.Module) -> nn.Module:
    """A copy of `model` with every window attention folded; the model itself is not modified.

    Raises ConversionError if the output of a folded module differs from that of the original.
    """
    copied = copy.deepcopy(model)
    for name, block in copied.named_modules():
        if isinstance(block, SwinBlock) and isinstance(block.attn, WindowAttention):
            block.attn = folded(block.attn, block.attn_mask, f"{name}.attn")
            block.attn_mask = None
    return copied


def _recognises(state: Mapping[str, Tensor]) -> bool:
    return "layers.0.blocks.0.attn.dep_conv.weight" in state and "patch_embed.proj.weight" in state


def _recognise(
    state: Mapping[str, Tensor],
    config: Mapping[str, Any] | None,
    image_size: tuple[int, int] | None,
) -> InferredConfig:
    if config is not None and "MODEL" in config:
        return InferredConfig(_from_training_config(config, image_size))
    return _from_state(state, config, image_size)


def _from_training_config(
    config: Mapping[str, Any], image_size: tuple[int, int] | None
) -> SlideSwinConfig:
    """Sizes from the `config` node of the public training script."""
    try:
        swin, slide = config["MODEL"]["SWIN"], config["MODEL"]["SLIDE"]
        size = config["DATA"]["IMG_SIZE"]
        return SlideSwinConfig(
            image_size=image_size or image_sizes(size),
            embed_dim=int(swin["EMBED_DIM"]),
            depths=tuple(map(int, swin["DEPTHS"])),
            heads=tuple(map(int, swin["NUM_HEADS"])),
            slide_stages=int(slide["NUM_SLIDE_STAGES"]),
            window_size=int(swin["WINDOW_SIZE"]),
            num_classes=int(config["MODEL"]["NUM_CLASSES"]),
            kernel_size=int(slide["KA"]),
            patch_size=int(swin["PATCH_SIZE"]),
            in_channels=int(swin["IN_CHANS"]),
            mlp_ratio=float(swin["MLP_RATIO"]),
            qkv_bias=bool(swin["QKV_BIAS"]),
            qk_scale=None if swin["QK_SCALE"] is None else float(swin["QK_SCALE"]),
            ape=bool(swin["APE"]),
            patch_norm=bool(swin["PATCH_NORM"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ArchitectureError(
            f"the checkpoint's config cannot be read: {type(error).__name__} {error}",
            "save the bare state dict, so that the architecture is inferred from its shapes",
        ) from error


def _from_state(
    state: Mapping[str, Tensor],
    given: Mapping[str, Any] | None,
    image_size: tuple[int, int] | None,
) -> InferredConfig:
    """Sizes from key names and shapes, and from fields that the file's config gives by name."""
    with reading_keys("Slide-Swin"):
        embed_dim, in_channels, patch_size, _ = state["patch_embed.proj.weight"].shape
        depths = block_counts(state, r"layers\.(\d+)\.blocks\.(\d+)\.")
        heads, kernels, windows = [], set(), {}
        for stage in range(len(depths)):
            attention = f"layers.{stage}.blocks.0.attn"
            if f"{attention}.dep_conv.weight" in state:
                heads.append(state[f"{attention}.relative_position_bias_table"].shape[1])
                kernels.add(state[f"{attention}.dep_conv.weight"].shape[-1])
            else:
                rows, count = state[f"{attention}.relative_position_bias_table"].shape
                heads.append(count)
                windows[stage] = (math.isqrt(rows) + 1) // 2
        hidden = [
            state[f"layers.{stage}.blocks.0.mlp.fc1.weight"].shape[0]
            for stage in range(len(depths))
        ]
    found, notes = _image_size(state, patch_size, depths, windows)
    if image_size is not None or "image_size" in (given or {}):
        found, notes = image_size, ()
    why = "no window stage and no position embedding fixes it"
    config = SlideSwinConfig(
        image_size=given_size(given, found, why),
        embed_dim=embed_dim,
        depths=depths,
        heads=tuple(heads),
        slide_stages=len(depths) - len(windows),
        window_size=max(windows.values(), default=7),
        num_classes=head_classes(state),
        kernel_size=max(kernels),
        patch_size=patch_size,
        in_channels=in_channels,
        mlp_ratio=_mlp_ratio(hidden, embed_dim),
        qkv_bias="layers.0.blocks.0.attn.qkv.bias" in state,
        ape="absolute_pos_embed" in state,
        patch_norm="patch_embed.norm.weight" in state,
    )
    if "qk_scale" not in (given or {}):
        notes = ("no config in the file: qk_scale taken as d^-0.5", *notes)
    return InferredConfig(with_given(config, given), notes)


def _mlp_ratio(hidden: list[int], embed_dim: int) -> float:
    """The ratio that gives every stage its hidden width, which is rounded down."""
    widths = [embed_dim * 2**stage for stage in range(len(hidden))]
    lowest = max(h / width for h, width in zip(hidden, widths, strict=True))
    if [int(width * lowest) for width in widths] == hidden:
        return lowest
    return (lowest + min((h + 1) / width for h, width in zip(hidden, widths, strict=True))) / 2


def _image_size(
    state: Mapping[str, Tensor], patch: int, depths: tuple[int, ...], windows: Mapping[int, int]
) -> tuple[tuple[int, int] | None, tuple[str, ...]]:
    """A square image size from windows or position embeddings, with a note if it is assumed."""
    if (embedding := state.get("absolute_pos_embed")) is not None:
        side = patch * math.isqrt(embedding.shape[1])
        if (side // patch) ** 2 != embedding.shape[1]:
            return None, ()
        note = (
            f"assumed: image size {side}, because {embedding.shape[1]} position embeddings are "
            "those of a square; --image-size HxW overrides it"
        )
        return (side, side), (note,)
    largest = max(windows.values(), default=0)
    for stage, window in windows.items():
        masks = [state.get(f"layers.{stage}.blocks.{b}.attn_mask") for b in range(depths[stage])]
        for mask in masks:
            if mask is not None:
                side = math.isqrt(mask.shape[0]) * window * patch * 2**stage
                return (side, side), ()
        # A window without a shift mask in an odd block has the size of its map, unless the file
        # lacks buffers.
        kept = f"layers.{stage}.blocks.0.attn.relative_position_index" in state
        if window < largest or (kept and depths[stage] > 1):
            side = window * patch * 2**stage
            return (side, side), ()
    for stage, window in windows.items():
        side = window * patch * 2**stage
        note = (
            f"assumed: image size {side}, because the window of stage {stage} ({window}x{window}) "
            "covers its map in the published models; --image-size overrides it"
        )
        return (side, side), (note,)
    return None, ()


FAMILY = Family(
    name="slide-swin",
    config_type=SlideSwinConfig,
    recognises=_recognises,
    recognise=_recognise,
    build=SlideSwin,
    simplify=fold_windows,
    derived=("relative_position_index",),
    derived_from_size=("attn_mask",),
)
