"""Common parts of PVT and PVTv2: sizes, spatial-reduction attention, blocks.

Source: Wang et al., "Pyramid Vision Transformer", ICCV 2021, arXiv 2102.12122. State-dict
names are those of the public implementation, which numbers its stages from 1, and so is the
epsilon of each LayerNorm: 1e-6 in the blocks, 1e-5 after patch embedding and reduction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from slide_deploy.errors import ArchitectureError
from slide_deploy.models.backbone import BackboneConfig, Block, PatchEmbed
from slide_deploy.models.config_inference import (
    block_counts,
    check_heads,
    check_kernel,
    head_classes,
    reading_keys,
)

__all__ = ["EPSILON", "PyramidConfig", "blocks", "patch_embed", "published_sizes", "read_sizes"]

EPSILON = 1e-6


@dataclass(frozen=True, kw_only=True)
class PyramidConfig(BackboneConfig):
    """Sizes of a pyramid.

    `sr_ratios` are the sizes of the patches by which keys and values are reduced, or 1 without
    reduction, as in the slide stages, which come first.
    """

    embed_dims: tuple[int, ...]
    mlp_ratios: tuple[float, ...]
    sr_ratios: tuple[int, ...]

    def dim(self, stage: int) -> int:
        return self.embed_dims[stage]

    def hidden(self, stage: int) -> int:
        """Width inside a stage's MLPs, rounded down as in the public implementations.

        The margin compensates for the rounding of a ratio that was inferred from a width.
        """
        return int(self.embed_dims[stage] * self.mlp_ratios[stage] + 1e-6)

    def check(self) -> None:
        """Raise ArchitectureError if the sizes are not compatible."""
        height, width = self.image_size
        check_heads(self.heads, self.embed_dims, first=1)
        check_kernel(self.kernel_size)
        for stage in range(len(self.depths)):
            smallest = 1 if stage < self.slide_stages else self.sr_ratios[stage]
            if min(self.resolution(stage)) < smallest:
                rows, columns = self.resolution(stage)
                raise ArchitectureError(
                    f"image size {height}x{width} gives stage {stage + 1} a {rows}x{columns} "
                    f"map, which is smaller than {smallest}x{smallest}",
                    "use a larger --image-size",
                )


def patch_embed(channels: int, dim: int, kernel: int, stride: int, padding: int = 0) -> PatchEmbed:
    """Patch embedding by a strided convolution: (B, C, H, W) → (B, H', W', C')."""
    return PatchEmbed(nn.Conv2d(channels, dim, kernel, stride, padding), nn.LayerNorm(dim))


class SpatialReductionAttention(nn.Module):
    """Global attention with keys and values from a reduced map; (B, H, W, C) → (B, H, W, C).

    With `reduction` 1 it is plain attention over all H·W tokens.
    """

    def __init__(self, config: PyramidConfig, stage: int) -> None:
        super().__init__()
        self.dim, self.heads = config.embed_dims[stage], config.heads[stage]
        self.reduction = config.sr_ratios[stage]
        self.scale = config.qk_scale or (self.dim // self.heads) ** -0.5
        self.q = nn.Linear(self.dim, self.dim, bias=config.qkv_bias)
        self.kv = nn.Linear(self.dim, 2 * self.dim, bias=config.qkv_bias)
        self.proj = nn.Linear(self.dim, self.dim)
        if self.reduction > 1:
            self.sr = nn.Conv2d(self.dim, self.dim, self.reduction, stride=self.reduction)
            self.norm = nn.LayerNorm(self.dim)

    def reduced(self, x: Tensor) -> Tensor:
        """One token per patch of the map; incomplete patches are ignored."""
        if self.reduction == 1:
            return x
        return self.norm(self.sr(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        _, height, width, _ = x.shape
        heads, depth = self.heads, self.dim // self.heads
        q = self.q(x).reshape(-1, height * width, heads, depth).permute(0, 2, 1, 3)
        # As in window attention the outputs are split k, v first, then by head.
        source = self.reduced(x)
        kv = self.kv(source).reshape(-1, source.shape[1] * source.shape[2], 2 * heads, depth)
        k, v = kv.permute(0, 2, 1, 3).chunk(2, dim=1)
        out = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        return self.proj(out.permute(0, 2, 1, 3).reshape(-1, height, width, self.dim))


def blocks(
    config: PyramidConfig, stage: int, mlp: Callable[[int, int], nn.Module]
) -> nn.Sequential:
    """A stage's blocks, whose attention is Slide or spatial-reduction attention."""
    dim, slides = config.dim(stage), stage < config.slide_stages
    return nn.Sequential(
        *(
            Block(
                dim,
                config.slide_attention(stage)
                if slides
                else SpatialReductionAttention(config, stage),
                mlp(dim, config.hidden(stage)),
                EPSILON,
            )
            for _ in range(config.depths[stage])
        )
    )


def published_sizes(
    depths: tuple[int, ...], num_classes: int, *, base: int = 64, early_mlp_ratio: float = 8.0
) -> dict[str, Any]:
    """Fields of PyramidConfig of the published models, at 224×224."""
    return {
        "image_size": (224, 224),
        "embed_dims": (base, 2 * base, 5 * base, 8 * base),
        "depths": depths,
        "heads": (1, 2, 5, 8),
        "mlp_ratios": (early_mlp_ratio, early_mlp_ratio, 4.0, 4.0),
        "sr_ratios": (1, 1, 2, 1),
        "slide_stages": 2,
        "num_classes": num_classes,
    }


def read_sizes(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Fields of PyramidConfig from key names and shapes, and notes on assumptions.

    Shapes do not determine the heads of a spatial-reduction stage. They are assumed to be as wide
    as those of the slide stages, as in every published PVT and PVTv2.
    """
    with reading_keys("Slide-PVT"):
        depths = block_counts(state, r"block(\d+)\.(\d+)\.")
        attentions = [f"block{stage}.0.attn" for stage in range(1, len(depths) + 1)]
        slide = [name for name in attentions if f"{name}.dep_conv.weight" in state]
        dims = [state[f"{name}.proj.weight"].shape[0] for name in attentions]
        kernels, _, side, _ = state[f"{slide[0]}.dep_conv.weight"].shape
        head_dim = kernels // side**2
        hidden = [state[f"block{s + 1}.0.mlp.fc1.weight"].shape[0] for s in range(len(depths))]
        slide_heads = [state[f"{n}.relative_position_bias_table"].shape[1] for n in slide]
    if head_dim == 0 or any(dim % head_dim for dim in dims):
        raise ArchitectureError(
            f"heads of {head_dim} channels do not divide stages of {', '.join(map(str, dims))}",
            "write the file with `slide-deploy fuse`, which stores the config",
        )
    reduced = [state.get(f"{name}.sr.weight") for name in attentions]
    sizes = {
        "embed_dims": tuple(dims),
        "depths": depths,
        "heads": (*slide_heads, *(dim // head_dim for dim in dims[len(slide) :])),
        "mlp_ratios": tuple(count / dim for count, dim in zip(hidden, dims, strict=True)),
        "sr_ratios": tuple(1 if weight is None else weight.shape[-1] for weight in reduced),
        "slide_stages": len(slide),
        "num_classes": head_classes(state),
        "kernel_size": side,
        "in_channels": state["patch_embed1.proj.weight"].shape[1],
        "qkv_bias": f"{slide[0]}.qkv.bias" in state,
    }
    notes = [f"assumed: qk_scale d^-0.5, and heads of {head_dim} channels in every stage"]
    return sizes, tuple(notes)
