"""The weights of a fused module with every constant folded, in float64.

With `w[c,j,δ]` the fused kernel (channel c of a head, tap j, kernel position δ), `b[c,j]` its
bias, q scaled, and k and v zero outside of the image:

    logit_j(p) = Σ_c q_c(p) B[h,c,j]  +  Σ_δ Σ_c w[c,j,δ] · q_c(p) k_c(p+δ)
    out_c(p)   = Σ_j a_j(p) b[c,j]    +  Σ_δ v_c(p+δ) · Σ_j w[c,j,δ] a_j(p)

where `B[h,c,j] = b[c,j] + position_bias[h,j]`. The scale goes into q's rows of the projection,
or, where q, k and v are one projection, into the key kernel and B.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slide_deploy.lowering.lowering import ImpossibleLowering
from slide_deploy.models.slide_attention import AttentionConfig, FusedSlideAttention

__all__ = ["Folded", "Projection", "fold"]


@dataclass(frozen=True)
class Projection:
    """A linear map of channels: weight (out, in) and optional bias (out)."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class Folded:
    """Weights of one module in float64; channels of the attention are head-major.

    `projections` are those of q, k and v, or one for all three. The kernels are
    `w[c,j,δ]`, shape (d, k², k²); `query_bias` is `B[h,c,j]`, `value_bias` is `b[c,j]`.
    """

    config: AttentionConfig
    dtype: torch.dtype
    projections: tuple[Projection, ...]
    query_bias: Tensor
    key_kernel: Tensor
    value_bias: Tensor
    value_kernel: Tensor
    output: Projection


def fold(module: FusedSlideAttention) -> Folded:
    """Fold a module's constants; ImpossibleLowering if its convolutions are not plain shifts."""
    config = module.config
    keys = module.shift
    values = module.shift if config.share_kernel else module.shift_v
    for convolution in (keys, values):
        _require_shift(convolution, config)
    depth, taps, heads = config.head_dim, config.taps, config.heads

    key_kernel = _exact(keys.weight).reshape(depth, taps, taps)
    query_bias = _exact(keys.bias).reshape(1, depth, taps).expand(heads, depth, taps)
    if module.relative_position_bias_table is not None:
        query_bias = query_bias + _exact(module.relative_position_bias_table).reshape(
            heads, 1, taps
        )
    projections = _projections(module)
    if config.share_qkv:
        key_kernel, query_bias = key_kernel * config.scale, query_bias * config.scale
    return Folded(
        config=config,
        dtype=module.qkv.weight.dtype,
        projections=projections,
        query_bias=query_bias,
        key_kernel=key_kernel,
        value_bias=_exact(values.bias).reshape(depth, taps),
        value_kernel=_exact(values.weight).reshape(depth, taps, taps),
        output=_projection(module.proj),
    )


def _projections(module: FusedSlideAttention) -> tuple[Projection, ...]:
    """Separate projections of q, k and v, each head-major; q is scaled."""
    config, whole = module.config, _projection(module.qkv)
    if config.share_qkv:
        return (whole,)
    factors = (config.scale, 1.0, 1.0)
    # Head i has outputs i·3d … (i+1)·3d − 1, in the order q, k, v.
    weight = whole.weight.reshape(config.heads, 3, config.head_dim, config.dim)
    bias = None
    if whole.bias is not None:
        bias = whole.bias.reshape(config.heads, 3, config.head_dim)
    return tuple(
        Projection(
            weight[:, part].reshape(config.inner, config.dim) * factor,
            None if bias is None else bias[:, part].reshape(config.inner) * factor,
        )
        for part, factor in enumerate(factors)
    )


def _projection(linear: nn.Linear) -> Projection:
    bias = None if linear.bias is None else _exact(linear.bias)
    return Projection(_exact(linear.weight), bias)


def _exact(parameter: Tensor | None) -> Tensor:
    if parameter is None:
        raise ImpossibleLowering("a shift convolution has no bias, so it is not a fused one")
    return parameter.detach().double()


def _require_shift(convolution: nn.Conv2d, config: AttentionConfig) -> None:
    side = config.kernel_size
    if side % 2 == 0:
        raise ImpossibleLowering(
            f"a kernel of even size {side} has no middle, so its taps are not shifts"
        )
    plain = (
        convolution.kernel_size == (side, side)
        and convolution.padding == (side // 2, side // 2)
        and convolution.stride == (1, 1)
        and convolution.dilation == (1, 1)
        and convolution.padding_mode == "zeros"
    )
    if not plain:
        raise ImpossibleLowering(
            f"the shift convolution {convolution} does not have stride 1, dilation 1 "
            "and zero padding of half its size"
        )
