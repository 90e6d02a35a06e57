"""A single Slide Attention module as a model, with NCHW input and output.

The authors' DAT repository and detectors use it in this way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from slide_deploy.errors import AmbiguousModel, ArchitectureError
from slide_deploy.models.family import Family, InferredConfig
from slide_deploy.models.slide_attention import AttentionConfig, SlideAttention
from slide_deploy.types import TensorSpec

__all__ = ["FAMILY", "SlideModule", "SlideModuleConfig"]


@dataclass(frozen=True)
class SlideModuleConfig:
    """One attention module and the size of its map, (height, width) in pixels."""

    image_size: tuple[int, int]
    attention: AttentionConfig


class SlideModule(nn.Module):
    """Slide Attention on maps: (B, C, H, W) → (B, C, H, W)."""

    def __init__(self, config: SlideModuleConfig) -> None:
        super().__init__()
        self.config = config
        self.attention = SlideAttention(config.attention)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _recognises(state: Mapping[str, Tensor]) -> bool:
    return {"qkv.weight", "proj.weight", "dep_conv.weight", "dep_conv1.weight"} <= state.keys()


def _recognise(
    state: Mapping[str, Tensor],
    config: Mapping[str, Any] | None,
    image_size: tuple[int, int] | None,
) -> InferredConfig:
    (dim, inner), (kernels, _, side, _) = (
        state["attention.proj.weight"].shape,
        state["attention.dep_conv.weight"].shape,
    )
    head_dim = kernels // side**2
    if not head_dim or inner % head_dim or dim % inner:
        raise ArchitectureError(
            f"a Slide Attention of width {dim} cannot have {inner} inner channels "
            f"and heads of {head_dim}",
            "check that the state dict is complete",
        )
    attention = AttentionConfig(
        dim=dim,
        heads=inner // head_dim,
        kernel_size=side,
        qkv_bias="attention.qkv.bias" in state,
        reduction=dim // inner,
        position_bias="attention.relative_position_bias_table" in state,
        share_kernel="attention.dep_conv2.weight" not in state,
        share_qkv=state["attention.qkv.weight"].shape[0] == inner,
    )
    if image_size is None:
        raise AmbiguousModel(
            "a single Slide Attention module works on maps of any size",
            "pass the size of the map, e.g. --image-size 14x14",
        )
    note = "assumed: qk_scale (C/h)^-0.5"
    return InferredConfig(SlideModuleConfig(image_size, attention), (note,))


def _map(name: str, config: SlideModuleConfig) -> TensorSpec:
    return TensorSpec(name, (1, config.attention.dim, *config.image_size))


FAMILY = Family(
    name="slide-attention",
    config_type=SlideModuleConfig,
    recognises=_recognises,
    recognise=_recognise,
    build=SlideModule,
    input_spec=lambda config: _map("features", config),
    output_specs=lambda config: (_map("attended", config),),
    prefix="attention.",
)
