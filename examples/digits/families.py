"""Model families that can be trained on the digits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from data import IMAGE_SIZE
from torch import nn
from yacs.config import CfgNode

from slide_deploy.models.slide_cswin import SlideCSwin, SlideCSwinConfig
from slide_deploy.models.slide_nat import SlideNat, SlideNatConfig
from slide_deploy.models.slide_pvt import SlidePvt, SlidePvtConfig
from slide_deploy.models.slide_pvt_v2 import SlidePvtV2, SlidePvtV2Config
from slide_deploy.models.slide_swin import SlideSwin, SlideSwinConfig

__all__ = ["FAMILIES", "Family"]


@dataclass(frozen=True)
class Family:
    """`build` returns an untrained model; `describe` returns its config for checkpoints."""

    build: Callable[[], nn.Module]
    describe: Callable[[], CfgNode]


# Maps of 8×8, 4×4 and 2×2 tokens: two slide stages as in the paper, then one window that is
# reduced from 4 to the size of its map, like the paper's window of 56.
SLIDE_SWIN = SlideSwinConfig(
    image_size=(IMAGE_SIZE, IMAGE_SIZE),
    embed_dim=24,
    depths=(2, 2, 1),
    heads=(2, 4, 8),
    slide_stages=2,
    window_size=4,
    num_classes=10,
)


def build_slide_swin() -> nn.Module:
    """The small Slide-Swin, with torch's default weights."""
    return SlideSwin(SLIDE_SWIN)


def describe_slide_swin() -> CfgNode:
    """The settings that a state dict does not determine, as in the public training code."""
    config = SLIDE_SWIN
    return CfgNode(
        {
            "DATA": {"IMG_SIZE": IMAGE_SIZE},
            "MODEL": {
                "TYPE": "slide_swin",
                "NAME": "slide_swin_digits",
                "NUM_CLASSES": config.num_classes,
                "SWIN": {
                    "PATCH_SIZE": config.patch_size,
                    "IN_CHANS": config.in_channels,
                    "EMBED_DIM": config.embed_dim,
                    "DEPTHS": list(config.depths),
                    "NUM_HEADS": list(config.heads),
                    "WINDOW_SIZE": config.window_size,
                    "MLP_RATIO": config.mlp_ratio,
                    "QKV_BIAS": config.qkv_bias,
                    "QK_SCALE": config.qk_scale,
                    "APE": config.ape,
                    "PATCH_NORM": config.patch_norm,
                },
                "SLIDE": {"KA": config.kernel_size, "NUM_SLIDE_STAGES": config.slide_stages},
            },
        }
    )


# The others have maps of 8×8, 4×4 and 2×2 tokens too, and under 120,000 weights: a file with
# two sets of them stays below one megabyte.
SLIDE_PVT = SlidePvtConfig(
    image_size=(IMAGE_SIZE, IMAGE_SIZE),
    position_size=(IMAGE_SIZE, IMAGE_SIZE),
    embed_dims=(16, 32, 64),
    depths=(2, 2, 1),
    heads=(2, 4, 8),
    mlp_ratios=(4.0, 4.0, 3.0),
    sr_ratios=(1, 1, 1),
    slide_stages=2,
    num_classes=10,
)
# One slide stage only: the second then shows the family's own kind of reduced attention.
SLIDE_PVT_V2 = SlidePvtV2Config(
    image_size=(IMAGE_SIZE, IMAGE_SIZE),
    embed_dims=(16, 32, 64),
    depths=(2, 2, 1),
    heads=(2, 4, 8),
    mlp_ratios=(4.0, 4.0, 2.0),
    sr_ratios=(1, 2, 1),
    slide_stages=1,
    num_classes=10,
)
# One slide stage, one with stripes, and the last attends to its whole map.
SLIDE_CSWIN = SlideCSwinConfig(
    image_size=(IMAGE_SIZE, IMAGE_SIZE),
    embed_dim=16,
    depths=(2, 2, 1),
    heads=(2, 4, 8),
    slide_stages=1,
    split_sizes=(1, 2, 2),
    num_classes=10,
    mlp_ratio=3.0,
)
# One slide stage; then windows of 3×3 that are clamped at the borders of 4×4 and of 2×2.
SLIDE_NAT = SlideNatConfig(
    image_size=(IMAGE_SIZE, IMAGE_SIZE),
    embed_dim=16,
    depths=(2, 2, 1),
    heads=(2, 4, 8),
    slide_stages=1,
    num_classes=10,
    neighborhood=3,
)


def describe_pyramid() -> CfgNode:
    """The settings of PVT and PVTv2 that shapes do not determine, as in Swin's training code."""
    return CfgNode({"DATA": {"IMG_SIZE": IMAGE_SIZE}})


def describe_fields(config: SlideCSwinConfig | SlideNatConfig) -> CfgNode:
    """The config by field names, because the public training code stores none."""
    return CfgNode(
        {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(config).items()}
    )


FAMILIES: dict[str, Family] = {
    "slide-swin": Family(build_slide_swin, describe_slide_swin),
    "slide-pvt": Family(lambda: SlidePvt(SLIDE_PVT), describe_pyramid),
    "slide-pvt-v2": Family(lambda: SlidePvtV2(SLIDE_PVT_V2), describe_pyramid),
    "slide-cswin": Family(lambda: SlideCSwin(SLIDE_CSWIN), lambda: describe_fields(SLIDE_CSWIN)),
    "slide-nat": Family(lambda: SlideNat(SLIDE_NAT), lambda: describe_fields(SLIDE_NAT)),
}
