"""Slide-PVT: Pyramid Vision Transformer with Slide Attention in its first stages.

Sources: Pan et al., CVPR 2023, arXiv 2304.04237, on Wang et al., ICCV 2021, arXiv 2102.12122.
State-dict names are those of PVT's public implementation. No code of Slide-PVT is public. The
paper's counts agree if Slide Attention replaces spatial-reduction attention in stages 1 and 2, and
everything else is PVT's, including class token, position embeddings and MLP ratios.

At 224×224 with 1000 classes; parameters of the unfused model, including its frozen one-hot kernels,
and multiply-adds of the fused model:

    model           parameters   paper      FLOPs     paper
    Slide-PVT-T     12.23 M      12.2 M     2.02 G    2.0 G
    Slide-PVT-S     22.73 M      22.7 M     3.96 G    4.0 G
    Slide-PVT-M     42.45 M         -       6.81 G      -
    Slide-PVT-L     58.61 M         -      10.03 G      -

With Slide Attention in stage 1 alone, T and S would have 12.7 M and 23.7 M parameters, in stages 1
to 3 11.4 M and 20.3 M.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from slide_deploy.errors import AmbiguousModel, ArchitectureError
from slide_deploy.models.config_inference import training_size
from slide_deploy.models.family import Family, InferredConfig
from slide_deploy.models.mlp import Mlp, classifier
from slide_deploy.models.pyramid import (
    EPSILON,
    PyramidConfig,
    blocks,
    patch_embed,
    published_sizes,
    read_sizes,
)
from slide_deploy.models.shapes import shapes_only

__all__ = [
    "FAMILY",
    "SlidePvt",
    "SlidePvtConfig",
    "slide_pvt_l",
    "slide_pvt_m",
    "slide_pvt_s",
    "slide_pvt_t",
]


@dataclass(frozen=True, kw_only=True)
class SlidePvtConfig(PyramidConfig):
    """Sizes of a Slide-PVT. `position_size` is the image size for which its position embeddings
    were trained; for another `image_size` they are resized, as in public detectors."""

    position_size: tuple[int, int]
    patch_size: int = 4

    def resolution(self, stage: int) -> tuple[int, int]:
        return self.map_of(self.image_size, stage)

    def map_of(self, image: tuple[int, int], stage: int) -> tuple[int, int]:
        """Height and width of a stage's map of such an image, without incomplete patches."""
        step = self.patch_size * 2**stage
        return image[0] // step, image[1] // step


class Positions(nn.Module):
    """Resizes learned position embeddings, (1, h·w, C) → (1, H, W, C), bilinearly.

    It multiplies by one constant matrix per axis, which every target supports and can fold.
    """

    rows: Tensor
    columns: Tensor
    fixes_size = "holds position embeddings of one map"

    def __init__(self, trained: tuple[int, int], wanted: tuple[int, int]) -> None:
        super().__init__()
        self.trained, self.wanted = trained, wanted
        if trained != wanted:
            rows, columns = (_weights(n, m) for n, m in zip(trained, wanted, strict=True))
            self.register_buffer("rows", rows, persistent=False)
            self.register_buffer("columns", columns, persistent=False)

    def forward(self, embedding: Tensor) -> Tensor:
        (height, width), (rows, columns) = self.wanted, self.trained
        if self.trained != self.wanted:
            embedding = self.rows @ embedding.reshape(rows, -1)
            embedding = self.columns @ embedding.reshape(height, columns, -1)
        return embedding.reshape(1, height, width, -1)


def _weights(size: int, wanted: int) -> Tensor:
    """Linear interpolation from `size` to `wanted` points as a (wanted, size) matrix."""
    if shapes_only():
        return torch.empty(wanted, size)
    basis = torch.eye(size, dtype=torch.float64)[None]
    return functional.interpolate(basis, size=wanted, mode="linear")[0].T.float().contiguous()


class SlidePvt(nn.Module):
    """Image (B, 3, H, W) → logits (B, classes), or the class token without a head."""

    cls_token: nn.Parameter

    def __init__(self, config: SlidePvtConfig) -> None:
        super().__init__()
        _check(config)
        self.config = config
        channels = config.in_channels
        last = len(config.depths) - 1
        self.positions = nn.ModuleList()
        for stage, dim in enumerate(config.embed_dims):
            trained = config.map_of(config.position_size, stage)
            tokens = math.prod(trained) + (stage == last)  # including that of the class token
            patch = config.patch_size if stage == 0 else 2
            number = stage + 1
            self.add_module(f"patch_embed{number}", patch_embed(channels, dim, patch, patch))
            self.register_parameter(f"pos_embed{number}", nn.Parameter(torch.zeros(1, tokens, dim)))
            self.positions.append(Positions(trained, config.resolution(stage)))
            self.add_module(f"block{number}", blocks(config, stage, Mlp))
            channels = dim
        self.norm = nn.LayerNorm(channels, eps=EPSILON)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.head = classifier(config.features, config.num_classes)

    def position(self, stage: int) -> Tensor:
        """Position embeddings of a stage's map, (1, H, W, C), without that of the class token."""
        embedding: Tensor = self.get_parameter(f"pos_embed{stage + 1}")
        if stage == len(self.config.depths) - 1:
            embedding = embedding[:, 1:]
        return self.positions[stage](embedding)

    def attend(self, x: Tensor, stage: int) -> Tensor:
        """One stage on a map, without class token: (B, C, H, W) → (B, C', H', W')."""
        x = self.get_submodule(f"patch_embed{stage + 1}")(x) + self.position(stage)
        return self.get_submodule(f"block{stage + 1}")(x).permute(0, 3, 1, 2)

    def classify(self, x: Tensor) -> Tensor:
        """The last stage, with the class token before the map's tokens: (B, C, H, W) → (B, C')."""
        last = len(self.config.depths)
        x = self.get_submodule(f"patch_embed{last}")(x)
        _, height, width, channels = x.shape
        token = self.cls_token + self.get_parameter(f"pos_embed{last}")[:, :1]
        position = self.position(last - 1).reshape(1, height * width, channels)
        # A zero token plus the class token's embedding is the class token: nothing has to
        # be repeated over a batch whose size is not known. The tokens are a map of one row.
        x = functional.pad(x.reshape(-1, 1, height * width, channels), (0, 0, 1, 0))
        x = x + torch.cat((token, position), dim=1)[:, None]
        x = self.get_submodule(f"block{last}")(x)
        return self.norm(x[:, :, :1].reshape(-1, channels))

    def forward(self, x: Tensor) -> Tensor:
        for stage in range(len(self.config.depths) - 1):
            x = self.attend(x, stage)
        return self.head(self.classify(x))

    def forward_features(self, x: Tensor) -> tuple[Tensor, ...]:
        """Each stage's map, (B, C, H, W), without class token, as in public detectors."""
        maps = []
        for stage in range(len(self.config.depths)):
            x = self.attend(x, stage)
            maps.append(x)
        return tuple(maps)


def _check(config: SlidePvtConfig) -> None:
    config.check()
    if len(config.depths) == config.slide_stages or config.sr_ratios[-1] != 1:
        raise ArchitectureError(
            "the last stage has a class token, so it needs plain attention",
            "use neither Slide Attention nor reduction in it",
        )
    if min(config.map_of(config.position_size, len(config.depths) - 1)) < 1:
        raise ArchitectureError("the position embeddings of the last stage are empty")


def _published(depths: tuple[int, ...], num_classes: int) -> SlidePvt:
    sizes = published_sizes(depths, num_classes)
    return SlidePvt(SlidePvtConfig(position_size=(224, 224), **sizes))


def slide_pvt_t(num_classes: int = 1000) -> SlidePvt:
    """Slide-PVT-T at 224×224: 12.2 M parameters, 2.0 GFLOPs in the paper."""
    return _published((2, 2, 2, 2), num_classes)


def slide_pvt_s(num_classes: int = 1000) -> SlidePvt:
    """Slide-PVT-S at 224×224: 22.7 M parameters, 4.0 GFLOPs in the paper."""
    return _published((3, 4, 6, 3), num_classes)


def slide_pvt_m(num_classes: int = 1000) -> SlidePvt:
    """PVT-Medium's sizes with Slide Attention in stages 1 and 2."""
    return _published((3, 4, 18, 3), num_classes)


def slide_pvt_l(num_classes: int = 1000) -> SlidePvt:
    """PVT-Large's sizes with Slide Attention in stages 1 and 2."""
    return _published((3, 8, 27, 3), num_classes)


def _recognises(state: Mapping[str, Tensor]) -> bool:
    return "block1.0.attn.dep_conv.weight" in state and "pos_embed1" in state


def _recognise(
    state: Mapping[str, Tensor],
    config: Mapping[str, Any] | None,
    image_size: tuple[int, int] | None,
) -> InferredConfig:
    """Sizes from key names and shapes; of a training configuration only the image size."""
    sizes, notes = read_sizes(state)
    patch = state["patch_embed1.proj.weight"].shape[-1]
    trained = training_size(config) or _trained_size(state, patch, image_size)
    text = "x".join(map(str, trained))
    if image_size not in (None, trained):
        notes = (*notes, f"assumed: position embeddings of {text} images, which are resized")
    elif config is None:
        notes = (*notes, f"assumed: position embeddings of {text} images")
    return InferredConfig(
        SlidePvtConfig(
            image_size=image_size or trained, position_size=trained, patch_size=patch, **sizes
        ),
        notes,
    )


def _trained_size(
    state: Mapping[str, Tensor], patch: int, image_size: tuple[int, int] | None
) -> tuple[int, int]:
    """The given size, if it has as many positions; else the square that has.

    The number of positions does not determine the aspect ratio of the map.
    """
    tokens = state["pos_embed1"].shape[1]
    if image_size is not None and (image_size[0] // patch) * (image_size[1] // patch) == tokens:
        return image_size
    side = math.isqrt(tokens)
    if side * side == tokens:
        return side * patch, side * patch
    raise AmbiguousModel(
        f"{tokens} positions of the first stage are not those of a square image",
        "pass --image-size HxW, the size that the model was trained for",
    )


FAMILY = Family(
    name="slide-pvt",
    config_type=SlidePvtConfig,
    recognises=_recognises,
    recognise=_recognise,
    build=SlidePvt,
)
