"""A family of one Slide Attention between a stem and a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from slide_deploy.models.config_inference import given_size, head_classes
from slide_deploy.models.family import Family, InferredConfig
from slide_deploy.models.slide_attention import AttentionConfig, SlideAttention
from slide_deploy.types import TensorSpec

__all__ = ["FAMILY", "TinySlide", "TinySlideConfig"]


@dataclass(frozen=True)
class TinySlideConfig:
    """Sizes: nothing but JSON values and tuples, so that fused files can carry them."""

    image_size: tuple[int, int]
    dim: int
    heads: int
    num_classes: int


class TinySlide(nn.Module):
    """Image (B, 3, H, W) → logits (B, classes)."""

    def __init__(self, config: TinySlideConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Conv2d(3, config.dim, 4, stride=4)
        self.norm = nn.LayerNorm(config.dim)
        self.attn = SlideAttention(AttentionConfig(config.dim, config.heads, 3, True, None))
        self.head = nn.Linear(config.dim, config.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.forward_features(x)[-1].mean(dim=(2, 3)))

    def forward_features(self, x: Tensor) -> tuple[Tensor, ...]:
        """What `--features` gives: one map per stage, (B, C, H, W)."""
        x = self.stem(x).permute(0, 2, 3, 1)
        return ((x + self.attn(self.norm(x))).permute(0, 3, 1, 2),)


def recognises(state: Mapping[str, Tensor]) -> bool:
    """By keys that no other family has together."""
    return {"stem.weight", "attn.dep_conv.weight"} <= state.keys()


def recognise(
    state: Mapping[str, Tensor],
    config: Mapping[str, Any] | None,
    image_size: tuple[int, int] | None,
) -> InferredConfig:
    """Sizes from shapes; the image size from the user or the file's config, or an error."""
    return InferredConfig(
        TinySlideConfig(
            image_size=given_size(config, image_size, "no weight depends on it"),
            dim=state["stem.weight"].shape[0],
            heads=state["attn.relative_position_bias_table"].shape[1],
            num_classes=head_classes(state),
        )
    )


FAMILY = Family(
    name="tiny-slide",
    config_type=TinySlideConfig,
    recognises=recognises,
    recognise=recognise,
    build=TinySlide,
    input_spec=lambda config: TensorSpec("image", (1, 3, *config.image_size)),
    output_specs=lambda config: (TensorSpec("logits", (1, config.num_classes)),),
)
