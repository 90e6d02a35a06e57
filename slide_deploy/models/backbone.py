"""Common parts of families: sizes of stages, patch embedding, blocks, maps and logits.

Feature maps are (B, H, W, C).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from slide_deploy.models.config_inference import check_heads, check_kernel
from slide_deploy.models.mlp import Mlp, classifier
from slide_deploy.models.slide_attention import AttentionConfig, SlideAttention

__all__ = [
    "Backbone",
    "BackboneConfig",
    "Block",
    "DoublingConfig",
    "PatchEmbed",
    "Stage",
    "staged_maps",
]


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Sizes of a model. Sizes of images and maps are (height, width) in pixels; other tuples have
    an entry per stage. The slide stages come first."""

    image_size: tuple[int, int]
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    slide_stages: int
    num_classes: int = 1000
    kernel_size: int = 3
    in_channels: int = 3
    qkv_bias: bool = True
    qk_scale: float | None = None

    def dim(self, stage: int) -> int:
        """Channels of a stage."""
        raise NotImplementedError

    def resolution(self, stage: int) -> tuple[int, int]:
        """Height and width of a stage's feature map."""
        raise NotImplementedError

    @property
    def features(self) -> int:
        """Channels of the last stage."""
        return self.dim(len(self.depths) - 1)

    def slide_attention(self, stage: int) -> SlideAttention:
        """The attention of a slide stage."""
        dim, heads = self.dim(stage), self.heads[stage]
        return SlideAttention(
            AttentionConfig(dim, heads, self.kernel_size, self.qkv_bias, self.qk_scale)
        )


@dataclass(frozen=True, kw_only=True)
class DoublingConfig(BackboneConfig):
    """Sizes of a family whose channels double from stage to stage, with one MLP ratio."""

    embed_dim: int
    mlp_ratio: float = 4.0

    def dim(self, stage: int) -> int:
        return self.embed_dim << stage

    def mlp(self, stage: int) -> Mlp:
        """The MLP of a stage's blocks."""
        return Mlp(self.dim(stage), int(self.dim(stage) * self.mlp_ratio))

    def check(self) -> None:
        """Raise ArchitectureError if the sizes are not compatible."""
        check_heads(self.heads, [self.dim(stage) for stage in range(len(self.heads))])
        check_kernel(self.kernel_size)


class PatchEmbed(nn.Module):
    """Patch embedding by convolution and norm: (B, C, H, W) → (B, H', W', C')."""

    def __init__(self, proj: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.proj = proj
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class Block(nn.Module):
    """Pre-norm transformer block on (B, H, W, C); without `attn` a subclass overrides `attend`."""

    attn: nn.Module

    def __init__(
        self, dim: int, attn: nn.Module | None, mlp: nn.Module, epsilon: float = 1e-5
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=epsilon)
        if attn is not None:
            self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=epsilon)
        self.mlp = mlp

    def attend(self, x: Tensor) -> Tensor:
        """The attention of the normalised input."""
        return self.attn(x)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Stage(nn.Module):
    """Blocks of one resolution, then the downsampling, which the last stage lacks."""

    def __init__(self, blocks: Iterable[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample or nn.Identity()

    def attend(self, x: Tensor) -> Tensor:
        """The stage's feature map, before the downsampling."""
        return self.blocks(x)


class Backbone(nn.Module):
    """Image (B, 3, H, W) → logits (B, classes), or pooled features without a head."""

    def __init__(self, config: DoublingConfig) -> None:
        super().__init__()
        config.check()
        self.config = config

    def add_head(self) -> None:
        """Add the last norm and the classifier, whose weights are last in a state dict."""
        self.norm = nn.LayerNorm(self.config.features)
        self.head = classifier(self.config.features, self.config.num_classes)

    def maps(self, x: Tensor) -> list[Tensor]:
        """Each stage's map before its downsampling, (B, H, W, C)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.maps(x)[-1]).mean(dim=(1, 2)))

    def forward_features(self, x: Tensor) -> tuple[Tensor, ...]:
        """Each stage's map before its downsampling, (B, C, H, W), without norm.

        Detectors add their own norms, whose weights are not in this checkpoint.
        """
        return tuple(stage.permute(0, 3, 1, 2) for stage in self.maps(x))


def staged_maps(stages: nn.ModuleList, x: Tensor) -> list[Tensor]:
    """The map of each Stage."""
    maps = []
    for stage in stages:
        assert isinstance(stage, Stage)
        maps.append(stage.attend(x))
        x = stage.downsample(maps[-1])
    return maps
