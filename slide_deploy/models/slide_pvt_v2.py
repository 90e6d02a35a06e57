"""Slide-PVTv2: Pyramid Vision Transformer v2 with Slide Attention in its first stages.

Sources: Pan et al., CVPR 2023, arXiv 2304.04237, on Wang et al., "PVT v2", arXiv 2106.13797.
State-dict names are those of PVTv2's public implementation. No code of Slide-PVTv2 is public. Slide
Attention replaces spatial-reduction attention in stages 1 and 2, as in Slide-PVT, and everything
else is PVTv2's.

At 224×224 with 1000 classes; parameters of the unfused model, including its frozen one-hot kernels,
and multiply-adds of the fused model:

    model             parameters   paper      FLOPs     paper
    Slide-PVTv2-B0     3.43 M         -       0.60 G      -
    Slide-PVTv2-B1    13.01 M      13.0 M     2.19 G    2.2 G
    Slide-PVTv2-B2    23.61 M      22.8 M     4.17 G    4.2 G
    Slide-PVTv2-B3    43.48 M         -       7.04 G      -
    Slide-PVTv2-B4    59.80 M         -      10.32 G      -
    Slide-PVTv2-B5    79.70 M         -      11.90 G      -

The FLOPs of B2 agree with the paper; its parameters do not. Slide Attention in stage 1 alone would
give 24.6 M, in stages 1 to 3 21.2 M, and PVTv2's linear variant in stages 3 and 4 22.6 M. Two of
the six blocks of stage 3 in addition would give 22.8 M and 4.20 G, but the paper does not say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from slide_deploy.errors import ArchitectureError
from slide_deploy.models.config_inference import given_size, training_size
from slide_deploy.models.family import Family, InferredConfig
from slide_deploy.models.mlp import classifier
from slide_deploy.models.pyramid import (
    EPSILON,
    PyramidConfig,
    blocks,
    patch_embed,
    published_sizes,
    read_sizes,
)

__all__ = [
    "FAMILY",
    "SlidePvtV2",
    "SlidePvtV2Config",
    "slide_pvt_v2_b0",
    "slide_pvt_v2_b1",
    "slide_pvt_v2_b2",
    "slide_pvt_v2_b3",
    "slide_pvt_v2_b4",
    "slide_pvt_v2_b5",
]


@dataclass(frozen=True, kw_only=True)
class SlidePvtV2Config(PyramidConfig):
    """Sizes of a Slide-PVTv2. Its patches overlap, 7×7 at stride 4 and then 3×3 at stride 2. No
    weight depends on the image size."""

    def resolution(self, stage: int) -> tuple[int, int]:
        step = 4 * 2**stage
        return -(-self.image_size[0] // step), -(-self.image_size[1] // step)


class DWConv(nn.Module):
    """Depthwise 3×3 convolution on maps with channels last."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.dwconv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class ConvMlp(nn.Module):
    """Linear, depthwise convolution (which encodes positions), GELU (erf), Linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.dwconv = DWConv(hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.dwconv(self.fc1(x))))


class SlidePvtV2(nn.Module):
    """Image (B, 3, H, W) → logits (B, classes), or pooled features without a head."""

    def __init__(self, config: SlidePvtV2Config) -> None:
        super().__init__()
        config.check()
        self.config = config
        channels = config.in_channels
        for stage, dim in enumerate(config.embed_dims):
            kernel, stride = (7, 4) if stage == 0 else (3, 2)
            number = stage + 1
            patches = patch_embed(channels, dim, kernel, stride, padding=kernel // 2)
            self.add_module(f"patch_embed{number}", patches)
            self.add_module(f"block{number}", blocks(config, stage, ConvMlp))
            self.add_module(f"norm{number}", nn.LayerNorm(dim, eps=EPSILON))
            channels = dim
        self.head = classifier(config.features, config.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.forward_features(x)[-1].mean(dim=(2, 3)))

    def forward_features(self, x: Tensor) -> tuple[Tensor, ...]:
        """Each stage's map after its norm, (B, C, H, W), as in public detectors."""
        maps = []
        for number in range(1, len(self.config.depths) + 1):
            for part in ("patch_embed", "block", "norm"):
                x = self.get_submodule(f"{part}{number}")(x)
            x = x.permute(0, 3, 1, 2)
            maps.append(x)
        return tuple(maps)


def _published(depths: tuple[int, ...], num_classes: int, **sizes: Any) -> SlidePvtV2:
    return SlidePvtV2(SlidePvtV2Config(**published_sizes(depths, num_classes, **sizes)))


def slide_pvt_v2_b0(num_classes: int = 1000) -> SlidePvtV2:
    """PVTv2-B0's sizes with Slide Attention in stages 1 and 2."""
    return _published((2, 2, 2, 2), num_classes, base=32)


def slide_pvt_v2_b1(num_classes: int = 1000) -> SlidePvtV2:
    """Slide-PVTv2-B1 at 224×224: 13.0 M parameters, 2.2 GFLOPs in the paper."""
    return _published((2, 2, 2, 2), num_classes)


def slide_pvt_v2_b2(num_classes: int = 1000) -> SlidePvtV2:
    """Slide-PVTv2-B2 at 224×224: 22.8 M parameters, 4.2 GFLOPs in the paper."""
    return _published((3, 4, 6, 3), num_classes)


def slide_pvt_v2_b3(num_classes: int = 1000) -> SlidePvtV2:
    """PVTv2-B3's sizes with Slide Attention in stages 1 and 2."""
    return _published((3, 4, 18, 3), num_classes)


def slide_pvt_v2_b4(num_classes: int = 1000) -> SlidePvtV2:
    """PVTv2-B4's sizes with Slide Attention in stages 1 and 2."""
    return _published((3, 8, 27, 3), num_classes)


def slide_pvt_v2_b5(num_classes: int = 1000) -> SlidePvtV2:
    """PVTv2-B5's sizes with Slide Attention in stages 1 and 2."""
    return _published((3, 6, 40, 3), num_classes, early_mlp_ratio=4.0)


def _recognises(state: Mapping[str, Tensor]) -> bool:
    return {
        "block1.0.attn.dep_conv.weight",
        "block1.0.mlp.dwconv.dwconv.weight",
    } <= state.keys() and "pos_embed1" not in state


def _recognise(
    state: Mapping[str, Tensor],
    config: Mapping[str, Any] | None,
    image_size: tuple[int, int] | None,
) -> InferredConfig:
    """Sizes from key names and shapes; of a training configuration only the image size."""
    sizes, notes = read_sizes(state)
    if any(key.endswith("sr.weight") and value.shape[-1] == 1 for key, value in state.items()):
        raise ArchitectureError(
            "its global stages reduce by pooling to 7x7 (PVTv2's linear variant)",
            "the paper has no such Slide-PVTv2: export it as a custom model with --model",
        )
    trained = image_size or training_size(config)
    size = given_size(None, trained, "the weights of a PVTv2 do not depend on it")
    return InferredConfig(SlidePvtV2Config(image_size=size, **sizes), notes)


FAMILY = Family(
    name="slide-pvt-v2",
    config_type=SlidePvtV2Config,
    recognises=_recognises,
    recognise=_recognise,
    build=SlidePvtV2,
)
