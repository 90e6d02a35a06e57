"""Merges the fixed and the learned shift convolution into one depthwise convolution.

Both are linear and have the same geometry, so adding weights and biases is equivalent to adding
outputs (arXiv 2304.04237, section 4.3). This is checked in float64 on every module.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from slide_deploy.errors import ConversionError
from slide_deploy.models.equivalence import RELATIVE_TOLERANCE, error_on, noise
from slide_deploy.models.slide_attention import (
    AttentionConfig,
    FusedSlideAttention,
    LocalAttention,
    SlideAttention,
    shift_kernel,
)

__all__ = [
    "ShiftReport",
    "attention_error",
    "fuse",
    "fuse_attention",
    "fused_skeleton",
    "off_tap_share",
    "replace_attention",
    "shift_reports",
]


def replace_attention(
    model: nn.Module, replacement: Callable[[SlideAttention, str], nn.Module]
) -> nn.Module:
    """A copy of `model` with every SlideAttention replaced by `replacement(module, name)`."""
    copied = copy.deepcopy(model)
    if isinstance(copied, SlideAttention):
        return replacement(copied, "")
    for name, module in list(copied.named_modules()):
        if isinstance(module, SlideAttention):
            parent, _, own = name.rpartition(".")
            setattr(copied.get_submodule(parent), own, replacement(module, name))
    return copied


def fuse(model: nn.Module) -> nn.Module:
    """A copy of `model` in which every SlideAttention is fused; the model itself is not modified.

    Raises ConversionError if the output of a fused module differs from that of the original.
    """
    return replace_attention(model, fuse_attention)


def fused_skeleton(model: nn.Module) -> nn.Module:
    """The fused model's modules without its weights, to load a fused file into."""
    return replace_attention(model, lambda module, _: FusedSlideAttention(module.config))


def fuse_attention(module: SlideAttention, name: str) -> FusedSlideAttention:
    """One module fused, with the weights summed in float64."""
    fused = FusedSlideAttention(module.config).to(module.qkv.weight.dtype)
    state = {
        key: value for key, value in module.state_dict().items() if not key.startswith("dep_conv")
    }
    for part in ("weight", "bias"):
        state[f"shift.{part}"] = _sum(module.dep_conv, module.dep_conv1, part)
        if not module.config.share_kernel:
            state[f"shift_v.{part}"] = _sum(module.dep_conv, module.dep_conv2, part)
    exact = copy.deepcopy(fused).double()
    exact.load_state_dict(state)
    error = attention_error(copy.deepcopy(module).double(), exact)
    if not error <= RELATIVE_TOLERANCE:
        raise ConversionError(
            f"fusing {name or 'the module'} changed its output by {error:.1e} relative",
            "please report it, with the sizes of the model",
        )
    fused.load_state_dict(state)
    return fused.train(module.training)


def _sum(fixed: nn.Conv2d, learned: nn.Conv2d, part: str) -> Tensor:
    return fixed.get_parameter(part).detach().double() + learned.get_parameter(part).detach()


def attention_error(module: LocalAttention, other: nn.Module) -> float:
    """`error_on` (B, H, W, C) noise between an attention and another, both in float64."""
    # Larger than the kernel on both axes, and not square: borders, corners and the middle.
    size = 2 * module.config.kernel_size
    return error_on(noise((2, size, size + 1, module.config.dim)), module, other)


@dataclass(frozen=True)
class ShiftReport:
    """The learned part of one module's fused kernel.

    `off_tap_share` is ‖kernel outside the one-hot tap‖₂ / ‖kernel‖₂, which is 0 for a pure shift.
    """

    name: str
    config: AttentionConfig
    off_tap_share: float


def shift_reports(model: nn.Module) -> tuple[ShiftReport, ...]:
    """One report per Slide Attention of `model`, fused or not, in forward order."""
    reports = []
    for name, module in model.named_modules():
        if isinstance(module, SlideAttention):
            kernel = _sum(module.dep_conv, module.dep_conv1, "weight")
        elif isinstance(module, FusedSlideAttention):
            kernel = module.shift.weight.detach().double()
        else:
            continue
        share = off_tap_share(kernel)
        reports.append(ShiftReport(name, module.config, share))
    return tuple(reports)


def off_tap_share(kernel: Tensor) -> float:
    """Share of the norm of a (d·k², 1, k, k) kernel outside its one-hot taps."""
    side = kernel.shape[-1]
    on_tap = shift_kernel(kernel.shape[0] // side**2, side).bool()
    total = float(kernel.norm())
    return float(kernel[~on_tap].norm()) / total if total > 0 and math.isfinite(total) else 0.0
