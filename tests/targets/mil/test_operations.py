"""Every operation, through a package on disk, against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

from slide_deploy.validators._mil.ops import OPERATIONS

RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class Case:
    """An operation built by `build`, and what PyTorch says it should compute."""

    op: str
    build: Callable[..., Any]
    expected: Callable[..., Any]
    inputs: tuple[np.ndarray, ...]
    opset: int = 5
    note: str = field(default="")


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return (np.abs(normal(*shape)) + 0.1).astype(np.float32)


def inside(*shape: int) -> np.ndarray:
    return RNG.uniform(-0.9, 0.9, shape).astype(np.float32)


def whole(*shape: int, low: int = -9, high: int = 10) -> np.ndarray:
    return RNG.integers(low, high, shape).astype(np.int32)


def unary(name: str, expected: Callable[..., Any], x: np.ndarray) -> Case:
    return Case(name, lambda x: getattr(mb, name)(x=x), expected, (x,))


def binary(name: str, expected: Callable[..., Any], x: np.ndarray, y: np.ndarray) -> Case:
    return Case(name, lambda x, y: getattr(mb, name)(x=x, y=y), expected, (x, y))


def compared(name: str, expected: Callable[..., Any]) -> Case:
    x, y = whole(3, 4, low=0, high=3), whole(4, low=0, high=3)
    return Case(
        name, lambda x, y: mb.cast(x=getattr(mb, name)(x=x, y=y), dtype="int32"), expected, (x, y)
    )


def logical(name: str, expected: Callable[..., Any]) -> Case:
    def build(x: Any, y: Any) -> Any:
        x, y = mb.cast(x=x, dtype="bool"), mb.cast(x=y, dtype="bool")
        return mb.cast(x=getattr(mb, name)(x=x, y=y), dtype="int32")

    return Case(name, build, expected, (whole(3, 4, low=0, high=2), whole(4, low=0, high=2)))


def with_arguments(
    name: str, expected: Callable[..., Any], x: np.ndarray, opset: int = 5, **arguments: Any
) -> Case:
    note = ",".join(f"{k}={v}" for k, v in arguments.items() if np.size(v) <= 6)
    return Case(name, lambda x: getattr(mb, name)(x=x, **arguments), expected, (x,), opset, note)


ELEMENTWISE = [
    unary("abs", torch.abs, normal(3, 4)),
    unary("acos", torch.acos, inside(3, 4)),
    unary("asin", torch.asin, inside(3, 4)),
    unary("atan", torch.atan, normal(3, 4)),
    unary("atanh", torch.atanh, inside(3, 4)),
    unary("ceil", torch.ceil, normal(3, 4)),
    unary("cos", torch.cos, normal(3, 4)),
    unary("cosh", torch.cosh, normal(3, 4)),
    unary("erf", torch.erf, normal(3, 400)),
    unary("exp", torch.exp, normal(3, 4)),
    unary("exp2", torch.exp2, normal(3, 4)),
    unary("floor", torch.floor, normal(3, 4)),
    unary("round", torch.round, np.array([-2.5, -0.5, 0.5, 1.5, 1.7], np.float32)),
    unary("sign", torch.sign, np.array([-2.5, 0, 3], np.float32)),
    unary("sin", torch.sin, normal(3, 4)),
    unary("sinh", torch.sinh, normal(3, 4)),
    unary("sqrt", torch.sqrt, positive(3, 4)),
    unary("square", torch.square, normal(3, 4)),
    unary("tan", torch.tan, normal(3, 4)),
    unary("tanh", torch.tanh, normal(3, 4)),
    binary("add", torch.add, normal(2, 3, 4), normal(3, 1)),
    binary("sub", torch.sub, normal(2, 3, 4), normal(3, 1)),
    binary("mul", torch.mul, normal(2, 3, 4), normal(3, 1)),
    binary("mul", torch.mul, whole(2, 3), whole(3)),
    binary("real_div", torch.div, normal(2, 3, 4), positive(3, 1)),
    binary("floor_div", torch.floor_divide, normal(2, 3, 4), positive(3, 1)),
    binary("floor_div", torch.floor_divide, whole(4, 5), whole(5, low=1)),
    binary("mod", torch.remainder, normal(2, 3, 4), positive(3, 1)),
    binary("mod", torch.remainder, whole(4, 5), whole(5, low=1)),
    binary("pow", torch.pow, positive(2, 3, 4), normal(3, 1)),
    binary("maximum", torch.maximum, normal(2, 3, 4), normal(3, 1)),
    binary("minimum", torch.minimum, normal(2, 3, 4), normal(3, 1)),
    compared("equal", torch.eq),
    compared("not_equal", torch.ne),
    compared("greater", torch.gt),
    compared("greater_equal", torch.ge),
    compared("less", torch.lt),
    compared("less_equal", torch.le),
    logical("logical_and", torch.logical_and),
    logical("logical_or", torch.logical_or),
    logical("logical_xor", torch.logical_xor),
    Case(
        "logical_not",
        lambda x: mb.cast(x=mb.logical_not(x=mb.cast(x=x, dtype="bool")), dtype="int32"),
        torch.logical_not,
        (whole(5, low=0, high=2),),
    ),
    with_arguments("inverse", lambda x: 1 / (x + 0.5), positive(3, 4), epsilon=0.5),
    with_arguments("inverse", lambda x: 1 / (x + 1e-4), positive(3, 4)),
    with_arguments("log", lambda x: torch.log(x + 0.5), positive(3, 4), epsilon=0.5),
    with_arguments("log", torch.log, positive(3, 4)),
    with_arguments("rsqrt", lambda x: torch.rsqrt(x + 0.5), positive(3, 4), epsilon=0.5),
    with_arguments("rsqrt", torch.rsqrt, positive(3, 4)),
    with_arguments("clip", lambda x: x.clamp(-0.5, 0.25), normal(3, 4), alpha=-0.5, beta=0.25),
    with_arguments("threshold", lambda x: x.clamp(min=0.1), normal(3, 4), alpha=0.1),
    Case(
        "select",
        lambda c, a, b: mb.select(cond=mb.cast(x=c, dtype="bool"), a=a, b=b),
        lambda c, a, b: torch.where(c.bool(), a, b),
        (whole(3, 4, low=0, high=2), normal(3, 4), normal(3, 4)),
    ),
]


def channel(parameter: np.ndarray, rank: int) -> torch.Tensor:
    return torch.from_numpy(parameter).reshape(-1, *[1] * (rank - 2))


ALPHA, BETA = positive(3), positive(3)

ACTIVATION = [
    unary("relu", F.relu, normal(3, 4)),
    unary("relu6", F.relu6, 5 * normal(3, 4)),
    unary("sigmoid", torch.sigmoid, 20 * normal(3, 4)),
    unary("silu", F.silu, normal(3, 4)),
    unary("softplus", lambda x: F.softplus(x, threshold=1e9), 9 * normal(3, 4)),
    unary("softsign", F.softsign, normal(3, 4)),
    with_arguments("leaky_relu", lambda x: F.leaky_relu(x, 0.3), normal(3, 4), alpha=0.3),
    with_arguments("elu", lambda x: F.elu(x, 0.7), normal(3, 4), alpha=0.7),
    with_arguments(
        "clamped_relu",
        lambda x: F.leaky_relu(x, 0.3).clamp(max=0.5),
        normal(3, 4),
        alpha=0.3,
        beta=0.5,
    ),
    with_arguments(
        "thresholded_relu", lambda x: torch.where(x >= 0.4, x, 0), normal(3, 4), alpha=0.4
    ),
    with_arguments("linear_activation", lambda x: 2 * x + 3, normal(3, 4), alpha=2.0, beta=3.0),
    with_arguments(
        "scaled_tanh", lambda x: 2 * torch.tanh(3 * x), normal(3, 4), alpha=2.0, beta=3.0
    ),
    with_arguments(
        "sigmoid_hard", lambda x: (x / 6 + 0.5).clamp(0, 1), 4 * normal(9, 4), alpha=1 / 6, beta=0.5
    ),
    with_arguments(
        "prelu", lambda x: F.prelu(x, torch.from_numpy(ALPHA)), normal(2, 3, 4, 4), alpha=ALPHA
    ),
    with_arguments(
        "softplus_parametric",
        lambda x: channel(ALPHA, 4) * F.softplus(x * channel(BETA, 4)),
        normal(2, 3, 4, 4),
        alpha=ALPHA,
        beta=BETA,
    ),
    with_arguments("gelu", F.gelu, 3 * normal(9, 40)),
    with_arguments("gelu", F.gelu, 3 * normal(9, 40), mode="EXACT"),
    with_arguments(
        "gelu",
        lambda x: F.gelu(x, approximate="tanh"),
        normal(9, 40),
        mode="TANH_APPROXIMATION",
    ),
    with_arguments(
        "gelu", lambda x: x * torch.sigmoid(1.702 * x), normal(9, 40), mode="SIGMOID_APPROXIMATION"
    ),
    with_arguments("softmax", lambda x: x.softmax(-1), 9 * normal(2, 5, 7)),
    with_arguments("softmax", lambda x: x.softmax(1), 9 * normal(2, 5, 7), axis=1),
]

WEIGHT, BIAS = normal(6, 5), normal(6)


def matrices(tx: bool, ty: bool, x: np.ndarray, y: np.ndarray) -> Case:
    return Case(
        "matmul",
        lambda x, y: mb.matmul(x=x, y=y, transpose_x=tx, transpose_y=ty),
        lambda x, y: (x.mT if tx else x) @ (y.mT if ty else y),
        (x, y),
        note=f"transposed={tx},{ty}",
    )


LINEAR = [
    with_arguments(
        "linear",
        lambda x: F.linear(x, torch.from_numpy(WEIGHT), torch.from_numpy(BIAS)),
        normal(2, 3, 5),
        weight=WEIGHT,
        bias=BIAS,
    ),
    with_arguments(
        "linear", lambda x: F.linear(x, torch.from_numpy(WEIGHT)), normal(5), weight=WEIGHT
    ),
    matrices(False, False, normal(2, 1, 4, 5), normal(3, 5, 6)),
    matrices(True, False, normal(2, 5, 4), normal(2, 5, 6)),
    matrices(False, True, normal(2, 4, 5), normal(2, 6, 5)),
    matrices(True, True, normal(2, 5, 4), normal(2, 6, 5)),
    Case(
        "einsum",
        lambda x, y: mb.einsum(values=(x, y), equation="nchw,nwhu->nchu"),
        lambda x, y: torch.einsum("nchw,nwhu->nchu", x, y),
        (normal(2, 3, 4, 5), normal(2, 5, 4, 6)),
    ),
    Case(
        "einsum",
        lambda x, y: mb.einsum(values=(x, y), equation="chw,whr->chr"),
        lambda x, y: torch.einsum("chw,whr->chr", x, y.expand(5, 4, 6)),
        (normal(3, 4, 5), normal(5, 1, 6)),
        note="broadcast",
    ),
    Case(
        "scaled_dot_product_attention",
        lambda q, k, v: mb.scaled_dot_product_attention(query=q, key=k, value=v),
        F.scaled_dot_product_attention,
        (normal(2, 3, 4, 8), normal(2, 3, 5, 8), normal(2, 3, 5, 6)),
        opset=8,
    ),
    Case(
        "scaled_dot_product_attention",
        lambda q, k, v, m: mb.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=m),
        F.scaled_dot_product_attention,
        (normal(2, 4, 8), normal(2, 5, 8), normal(2, 5, 6), normal(4, 5)),
        opset=8,
        note="mask",
    ),
]


def convolution(x: np.ndarray, weight: np.ndarray, opset: int = 5, **arguments: Any) -> Case:
    """Padding is done by PyTorch's own pad, so that the two sides may differ."""
    rank = x.ndim - 2
    function = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    pad = arguments.get("pad", [0] * 2 * rank)
    before_after = [p for i in reversed(range(rank)) for p in pad[2 * i : 2 * i + 2]]
    bias = arguments.get("bias")
    weights = torch.from_numpy(weight), None if bias is None else torch.from_numpy(bias)

    def expected(x: torch.Tensor) -> torch.Tensor:
        strides, dilations = arguments.get("strides", 1), arguments.get("dilations", 1)
        groups = arguments.get("groups", 1)
        return function(F.pad(x, before_after), *weights, strides, 0, dilations, groups)

    if "pad" in arguments:
        arguments = {"pad_type": "custom", **arguments}
    return with_arguments("conv", expected, x, opset, weight=weight, **arguments)


def same(pad_type: str, before: int, after: int) -> Case:
    weight = normal(4, 3, 4, 4)
    return with_arguments(
        "conv",
        lambda x: F.conv2d(F.pad(x, [before, after] * 2), torch.from_numpy(weight)),
        normal(2, 3, 7, 7),
        6,
        weight=weight,
        pad_type=pad_type,
    )


def transposed(x: np.ndarray, weight: np.ndarray, padding: int = 0, **arguments: Any) -> Case:
    rank = x.ndim - 2
    function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]

    def expected(x: torch.Tensor) -> torch.Tensor:
        bias = arguments.get("bias")
        return function(
            x,
            torch.from_numpy(weight),
            None if bias is None else torch.from_numpy(bias),
            stride=arguments.get("strides", 1),
            padding=padding,
            dilation=arguments.get("dilations", 1),
            groups=arguments.get("groups", 1),
        )

    if padding:
        arguments = {"pad_type": "custom", "pad": [padding] * 2 * rank, **arguments}
    return with_arguments("conv_transpose", expected, x, weight=weight, **arguments)


FOURS = normal(4, 3, 4, 4)

CONVOLUTION = [
    convolution(normal(2, 3, 8, 8), normal(4, 3, 1, 1), bias=normal(4)),
    convolution(normal(2, 3, 8, 8), normal(4, 3, 1, 1), strides=[2, 2]),
    convolution(normal(1, 3, 16, 16), normal(8, 3, 4, 4), strides=[4, 4], bias=normal(8)),
    convolution(normal(2, 4, 9, 8), normal(6, 2, 3, 3), groups=2, pad=[1, 0, 2, 1]),
    convolution(normal(2, 6, 9, 8), normal(6, 1, 3, 3), groups=6, pad=[1, 1, 1, 1]),
    convolution(normal(2, 6, 9, 8), normal(6, 1, 3, 2), groups=6, strides=[2, 1]),
    convolution(normal(2, 3, 9, 8), normal(27, 1, 3, 3), groups=3, pad=[1, 1, 1, 1]),
    convolution(normal(2, 3, 9, 8), normal(4, 3, 3, 2), dilations=[2, 3]),
    convolution(normal(2, 3, 9), normal(4, 3, 3), pad=[1, 2], strides=[2]),
    convolution(normal(2, 3, 5, 6, 7), normal(4, 3, 2, 3, 2), strides=[1, 2, 1]),
    same("same", 1, 2),
    same("same_lower", 2, 1),
    transposed(normal(2, 4, 5, 6), normal(4, 3, 3, 3), bias=normal(3)),
    transposed(normal(2, 4, 5, 6), normal(4, 3, 2, 2), strides=[2, 2]),
    transposed(normal(2, 4, 5, 6), normal(4, 3, 3, 3), 1, groups=2, strides=[2, 1]),
    transposed(normal(2, 4, 5, 6), normal(4, 3, 3, 3), 1, dilations=[2, 1]),
    transposed(normal(2, 4, 5), normal(4, 3, 3), strides=[3]),
    with_arguments(
        "conv_transpose",
        lambda x: F.conv_transpose2d(x, torch.from_numpy(FOURS), None, 2, 1),
        normal(2, 4, 5, 6),
        weight=FOURS,
        pad_type="same",
        strides=[2, 2],
    ),
]

MEAN, VARIANCE = normal(3), positive(3)


def tensors(*arrays: np.ndarray) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(array) for array in arrays)


NORMALIZATION = [
    with_arguments(
        "batch_norm",
        lambda x: F.batch_norm(x, *tensors(MEAN, VARIANCE, ALPHA, BETA), eps=1e-3),
        normal(2, 3, 4, 5),
        mean=MEAN,
        variance=VARIANCE,
        gamma=ALPHA,
        beta=BETA,
        epsilon=1e-3,
    ),
    with_arguments(
        "batch_norm",
        lambda x: F.batch_norm(x, *tensors(MEAN, VARIANCE)),
        normal(2, 3, 4),
        mean=MEAN,
        variance=VARIANCE,
    ),
    with_arguments(
        "instance_norm",
        lambda x: F.instance_norm(x, weight=tensors(ALPHA)[0], bias=tensors(BETA)[0]),
        normal(2, 3, 4, 5),
        gamma=ALPHA,
        beta=BETA,
    ),
    with_arguments("instance_norm", F.instance_norm, normal(2, 3, 4, 5)),
    with_arguments(
        "layer_norm",
        lambda x: F.layer_norm(x, (3,), *tensors(ALPHA, BETA), eps=1e-3),
        normal(2, 5, 3) + 9,
        axes=[-1],
        gamma=ALPHA,
        beta=BETA,
        epsilon=1e-3,
    ),
    with_arguments(
        "layer_norm",
        lambda x: F.layer_norm(x.mT, (3,), *tensors(ALPHA, BETA)).mT,
        normal(2, 3, 5),
        axes=[1],
        gamma=ALPHA,
        beta=BETA,
    ),
    with_arguments("layer_norm", lambda x: F.layer_norm(x, (2, 5)), normal(2, 5), axes=[0, 1]),
    with_arguments(
        "l2_norm",
        lambda x: x / (x.square().sum((1, 2, 3), keepdim=True) + 1e-6).sqrt(),
        normal(2, 3, 4, 5),
    ),
    with_arguments(
        "local_response_norm",
        lambda x: F.local_response_norm(x, 3, alpha=0.5, beta=0.6, k=2),
        normal(2, 6, 4, 5),
        size=3,
        alpha=0.5,
        beta=0.6,
        k=2.0,
    ),
    *(
        with_arguments(
            "local_response_norm",
            lambda x, n=n: F.local_response_norm(x, n),
            normal(2, 7, 4),
            size=n,
        )
        for n in (2, 4, 5)
    ),
]


def reduction(name: str, expected: Callable[..., Any], x: np.ndarray) -> list[Case]:
    """Over two axes, over one that is kept, and over all."""
    return [
        with_arguments(name, lambda x: expected(x, (1, 2)), x, axes=[1, 2]),
        with_arguments(name, lambda x: expected(x, (1,), True), x, axes=[-2], keep_dims=True),
        with_arguments(name, lambda x: expected(x, (0, 1, 2)), x),
    ]


def product(x: torch.Tensor, axes: tuple[int, ...], keepdim: bool = False) -> torch.Tensor:
    for axis in reversed(axes):
        x = x.prod(axis, keepdim=keepdim)
    return x


# Of equal values PyTorch may take any.
DISTINCT = RNG.permutation(18).astype(np.int32).reshape(9, 2)

REDUCTION = [
    *reduction("reduce_sum", torch.sum, normal(3, 4, 5)),
    *reduction("reduce_sum", torch.sum, whole(3, 4, 5)),
    *reduction("reduce_mean", torch.mean, normal(3, 4, 5)),
    *reduction("reduce_max", torch.amax, normal(3, 4, 5)),
    *reduction("reduce_min", torch.amin, normal(3, 4, 5)),
    *reduction("reduce_prod", product, normal(3, 4, 5)),
    *reduction("reduce_log_sum_exp", torch.logsumexp, 99 * normal(3, 4, 5)),
    *reduction("reduce_l1_norm", lambda x, *a: x.abs().sum(*a), normal(3, 4, 5)),
    *reduction("reduce_l2_norm", lambda x, *a: x.square().sum(*a).sqrt(), normal(3, 4, 5)),
    *reduction("reduce_log_sum", lambda x, *a: x.sum(*a).log(), positive(3, 4, 5)),
    *reduction("reduce_sum_square", lambda x, *a: x.square().sum(*a), normal(3, 4, 5)),
    with_arguments("reduce_argmax", lambda x: x.argmax(-1), normal(3, 4)),
    with_arguments(
        "reduce_argmax", lambda x: x.argmax(0, True), normal(3, 4), axis=0, keep_dims=True
    ),
    with_arguments("reduce_argmin", lambda x: x.argmin(-1), normal(3, 4)),
    with_arguments(
        "reduce_argmin", lambda x: x.argmin(0), normal(3, 4), 7, axis=0, output_dtype="int32"
    ),
    with_arguments("argsort", lambda x: x.argsort(descending=True), normal(3, 4)),
    with_arguments("argsort", lambda x: x.argsort(0), normal(3, 4), axis=0, ascending=True),
    with_arguments("topk", lambda x: x.topk(2), normal(3, 7), k=2),
    with_arguments(
        "topk", lambda x: x.topk(2, 0, largest=False), DISTINCT, k=2, axis=0, ascending=True
    ),
    with_arguments(
        "topk", lambda x: x.topk(3).values, normal(3, 7), 6, k=3, return_indices=False, sort=True
    ),
    with_arguments("cumsum", lambda x: x.cumsum(0), normal(3, 4)),
    with_arguments(
        "cumsum", lambda x: x.flip(1).cumsum(1).flip(1), normal(3, 4), axis=1, reverse=True
    ),
    with_arguments("cumsum", lambda x: x.cumsum(1) - x, normal(3, 4), axis=1, exclusive=True),
]

POOLING = [
    with_arguments(
        "max_pool",
        lambda x: F.max_pool2d(x, 3, 2, 1),
        normal(2, 3, 9, 8),
        kernel_sizes=[3, 3],
        strides=[2, 2],
        pad_type="custom",
        pad=[1, 1, 1, 1],
    ),
    with_arguments(
        "max_pool",
        lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
        normal(2, 3, 8, 8),
        kernel_sizes=[3, 3],
        strides=[2, 2],
        pad_type="valid",
        ceil_mode=True,
    ),
    with_arguments(
        "max_pool",
        lambda x: F.max_pool3d(x, 2, 1),
        normal(2, 3, 4, 5, 6),
        kernel_sizes=[2, 2, 2],
        pad_type="valid",
    ),
    with_arguments(
        "avg_pool",
        lambda x: F.avg_pool1d(x, 3, 2),
        normal(2, 3, 9),
        kernel_sizes=[3],
        strides=[2],
        pad_type="valid",
    ),
    with_arguments(
        "avg_pool",
        lambda x: F.avg_pool2d(x, 3, 2, 1),
        normal(2, 3, 9, 8),
        kernel_sizes=[3, 3],
        strides=[2, 2],
        pad_type="custom",
        pad=[1, 1, 1, 1],
    ),
    with_arguments(
        "avg_pool",
        lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
        normal(2, 3, 10, 8),
        kernel_sizes=[3, 3],
        strides=[2, 2],
        pad_type="custom",
        pad=[1, 1, 1, 1],
        ceil_mode=True,
        exclude_padding_from_average=True,
    ),
    with_arguments(
        "l2_pool",
        lambda x: F.lp_pool2d(x, 2, 3, 2),
        normal(2, 3, 9, 8),
        kernel_sizes=[3, 3],
        strides=[2, 2],
        pad_type="valid",
    ),
    with_arguments(
        "l2_pool",
        lambda x: F.lp_pool1d(F.pad(x, (1, 2)), 2, 4, 1),
        normal(2, 3, 9),
        kernel_sizes=[4],
        pad_type="custom",
        pad=[1, 2],
    ),
]


def interleaved(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.stack([x, y], 2).flatten(1, 2)


def to_space(x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    return F.pixel_shuffle(x.reshape(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w), 2)


def to_depth(x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    return F.pixel_unshuffle(x, 2).reshape(n, c, 4, h // 2, w // 2).transpose(1, 2).flatten(1, 2)


X, Y = normal(2, 3, 4), normal(2, 3, 4)

SHAPING = [
    with_arguments("reshape", lambda x: x.reshape(2, 12), X, shape=[2, -1]),
    with_arguments("reshape", lambda x: x.reshape(2, 1, 12), X, shape=[0, 1, -1]),
    with_arguments("reshape", lambda x: x.reshape(6, 1, 4, 1), X, shape=[6, 1, 4, 1]),
    with_arguments(
        "reshape", lambda x: x.reshape(1, 1, 2, 50), normal(2, 50), 7, shape=[1, 0, -1, 0]
    ),
    Case(
        "reshape_like",
        lambda x, y: mb.reshape_like(
            x=x, ref_tensors=(y, y), begins=(0, 2), ends=(2, 0), end_masks=(False, True)
        ),
        lambda x, y: x.reshape(2, 3, 4),
        (normal(24), Y),
        6,
    ),
    with_arguments("flatten2d", lambda x: x.flatten(1), X),
    with_arguments("flatten2d", lambda x: x.flatten(0, 1), X, axis=-1),
    with_arguments("expand_dims", lambda x: x[:, None, ..., None], X, axes=[1, -1]),
    with_arguments("squeeze", torch.squeeze, normal(2, 1, 3, 1)),
    with_arguments("squeeze", lambda x: x.squeeze(1), normal(2, 1, 3, 1), axes=[1, 0]),
    with_arguments("transpose", lambda x: x.permute(2, 0, 1), X, perm=[2, 0, -2]),
    with_arguments("reverse", lambda x: x.flip(0, 2), X, axes=[0, -1]),
    with_arguments("reverse", lambda x: x.flip(0, 1, 2), X),
    with_arguments("tile", lambda x: x.tile(1, 2, 3), X, reps=[1, 2, 3]),
    Case(
        "concat",
        lambda x: mb.concat(
            values=[mb.reduce_sum(x=x, keep_dims=False), mb.reduce_max(x=x, keep_dims=False)],
            axis=0,
        ),
        lambda x: torch.stack([x.sum(), x.max()]),
        (normal(2, 3),),
        note="scalars",
    ),
    Case(
        "concat",
        lambda x, y: mb.concat(values=(x, y), axis=-1),
        lambda x, y: torch.cat([x, y], -1),
        (normal(2, 3), normal(2, 4)),
    ),
    Case(
        "concat",
        lambda x, y: mb.concat(values=(x, y), axis=1, interleave=True),
        interleaved,
        (X, Y),
    ),
    Case(
        "stack",
        lambda x, y: mb.stack(values=(x, y), axis=-1),
        lambda x, y: torch.stack([x, y], -1),
        (X, Y),
    ),
    with_arguments("split", lambda x: x.split(2, 2), X, num_splits=2, axis=-1),
    with_arguments("split", lambda x: x.split([1, 3], 2), X, split_sizes=[1, 3], axis=2),
    with_arguments(
        "slice_by_index",
        lambda x: x[0, :, 1:-1],
        X,
        begin=[0, 1, 1],
        end=[1, 2, -1],
        begin_mask=[False, True, False],
        end_mask=[False, True, False],
        squeeze_mask=[True, False, False],
    ),
    with_arguments(
        "slice_by_index",
        lambda x: x[:, ::2].flip(2)[..., ::2],
        X,
        begin=[0, 0, 0],
        end=[2, 3, 0],
        stride=[1, 2, -2],
        begin_mask=[False, False, True],
        end_mask=[False, False, True],
    ),
    with_arguments("slice_by_size", lambda x: x[:, 1:, 2:4], X, begin=[0, 1, -2], size=[-1, 2, 2]),
    Case(
        "slice_update",
        lambda x, y: mb.slice_update(
            x=x, update=y, begin=[0, 1, 0], end=[2, 3, 4], stride=[1, 1, 2]
        ),
        lambda x, y: x.slice_scatter(x[:, 1:3].slice_scatter(y, 2, step=2), 1, 1, 3),
        (X, normal(2, 2, 2)),
        8,
    ),
    with_arguments("crop", lambda x: x[..., 1:, 2:-1], X, crop_height=[1, 0], crop_width=[2, 1]),
    with_arguments(
        "sliding_windows", lambda x: x.unfold(1, 3, 2).mT, normal(2, 9, 4), axis=1, size=3, stride=2
    ),
    with_arguments(
        "pad", lambda x: F.pad(x, (3, 4, 1, 2), value=7), X, pad=[1, 2, 3, 4], constant_val=7.0
    ),
    with_arguments("pad", lambda x: F.pad(x, (3, 2), "reflect"), X, pad=[3, 2], mode="reflect"),
    with_arguments("pad", lambda x: F.pad(x, (3, 4), "replicate"), X, pad=[3, 4], mode="replicate"),
    with_arguments("band_part", torch.triu, normal(2, 4, 5), lower=0, upper=-1),
    with_arguments("band_part", lambda x: x.tril(2).triu(-1), normal(2, 4, 5), lower=1, upper=2),
    with_arguments(
        "pixel_shuffle", lambda x: F.pixel_shuffle(x, 2), normal(2, 12, 3, 4), upscale_factor=2
    ),
    with_arguments(
        "pixel_unshuffle",
        lambda x: F.pixel_unshuffle(x, 2),
        normal(2, 3, 4, 6),
        6,
        downscale_factor=np.uint32(2),
    ),
    with_arguments("depth_to_space", to_space, normal(2, 12, 3, 4), block_size=2),
    with_arguments("space_to_depth", to_depth, normal(2, 3, 4, 6), block_size=2),
]


def gathered(opset: int, indices: np.ndarray, **arguments: Any) -> Case:
    return Case(
        "gather",
        lambda x, i: mb.gather(x=x, indices=i, **arguments),
        lambda x, i: x[:, i.long()] if arguments.get("axis") else x[i.long()],
        (X, indices),
        opset,
        note=str(arguments),
    )


def scattered(name: str, mode: str, expected: Callable[..., Any], **arguments: Any) -> Case:
    indices = {
        "scatter": np.array([1, 0], np.int32),
        "scatter_along_axis": np.array([[1, 0, 2], [2, 1, 0]], np.int32),
        "scatter_nd": np.array([[1, 2], [0, 1]], np.int32),
    }[name]
    updates = normal(*{"scatter": (2, 3), "scatter_along_axis": (2, 3), "scatter_nd": (2,)}[name])
    return Case(
        name,
        lambda x, i, u: getattr(mb, name)(data=x, indices=i, updates=u, mode=mode, **arguments),
        lambda x, i, u: expected(x, i.long(), u),
        (normal(2, 3), indices, updates),
        note=mode,
    )


INDEXING = [
    gathered(5, np.array([1, -2], np.int32)),
    gathered(5, np.array([[0, -1], [1, 1]], np.int32), axis=1),
    gathered(7, np.array([1, 0], np.int32), validate_indices=True),
    Case(
        "gather",
        lambda x, i: mb.gather(x=x, indices=i, axis=1, batch_dims=1),
        lambda x, i: torch.stack([a[b.long()] for a, b in zip(x, i, strict=True)]),
        (X, np.array([[0, 1], [2, 2]], np.int32)),
        6,
        note="batch_dims",
    ),
    Case(
        "gather_along_axis",
        lambda x, i: mb.gather_along_axis(x=x, indices=i, axis=1),
        lambda x, i: x.gather(1, i.long()),
        (normal(2, 3), np.array([[0, 2, 1, 1], [2, 0, 0, 1]], np.int32)),
    ),
    Case(
        "gather_nd",
        lambda x, i: mb.gather_nd(x=x, indices=i),
        lambda x, i: x[i[:, 0].long(), i[:, 1].long()],
        (X, np.array([[0, 2], [1, 1], [0, 0]], np.int32)),
    ),
    Case(
        "gather_nd",
        lambda x, i: mb.gather_nd(x=x, indices=i, batch_dims=1),
        lambda x, i: torch.stack([a[b[:, 0].long()] for a, b in zip(x, i, strict=True)]),
        (X, np.array([[[0], [2]], [[1], [1]]], np.int32)),
        6,
        note="batch_dims",
    ),
    scattered("scatter", "update", lambda x, i, u: x.index_copy(0, i, u)),
    scattered("scatter", "add", lambda x, i, u: x.index_add(0, i, u)),
    scattered("scatter_along_axis", "update", lambda x, i, u: x.scatter(1, i, u), axis=1),
    scattered(
        "scatter_along_axis", "max", lambda x, i, u: x.scatter_reduce(1, i, u, "amax"), axis=1
    ),
    scattered("scatter_nd", "update", lambda x, i, u: x.index_put((i[:, 0], i[:, 1]), u)),
    scattered("scatter_nd", "sub", lambda x, i, u: x.index_put((i[:, 0], i[:, 1]), -u, True)),
]


def bilinear(height: int, width: int, align_corners: bool = False) -> Callable[..., Any]:
    def expected(x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, (height, width), mode="bilinear", align_corners=align_corners)

    return expected


def asymmetric(x: torch.Tensor) -> torch.Tensor:
    """To twice the size with no half pixels, as TensorFlow 1 had it: the last sample repeats."""
    for axis in (2, 3):
        after = torch.cat([x.narrow(axis, 1, x.shape[axis] - 1), x.narrow(axis, -1, 1)], axis)
        x = torch.stack([x, (x + after) / 2], axis + 1).flatten(axis, axis + 1)
    return x


def offset_corners(x: torch.Tensor) -> torch.Tensor:
    """From 3 to 4 samples at 0.25, 0.75, 1.25 and 1.75."""
    row = torch.tensor([[0.75, 0.25, 0], [0.25, 0.75, 0], [0, 0.75, 0.25], [0, 0.25, 0.75]])
    return row @ x @ row.T


RESIZING = [
    with_arguments(
        "upsample_nearest_neighbor",
        lambda x: F.interpolate(x, scale_factor=(2, 3)),
        normal(2, 3, 4, 5),
        scale_factor_height=2.0,
        scale_factor_width=3.0,
    ),
    with_arguments(
        "resize_nearest_neighbor",
        lambda x: F.interpolate(x, (8, 15)),
        normal(2, 3, 4, 5),
        target_size_height=8,
        target_size_width=15,
    ),
    with_arguments(
        "upsample_bilinear",
        bilinear(8, 15, align_corners=True),
        normal(2, 3, 4, 5),
        scale_factor_height=2,
        scale_factor_width=3,
    ),
    with_arguments(
        "upsample_bilinear",
        bilinear(7, 7),
        normal(2, 3, 3, 5),
        scale_factor_height=7 / 3,
        scale_factor_width=1.5,
        align_corners=False,
    ),
    with_arguments(
        "upsample_bilinear",
        asymmetric,
        normal(2, 3, 3, 5),
        6,
        scale_factor_height=2.0,
        scale_factor_width=2.0,
        align_corners=False,
        half_pixel_centers=False,
    ),
    *(
        with_arguments(
            "resize_bilinear",
            expected,
            normal(2, 3, 4, 5),
            target_size_height=8,
            target_size_width=10,
            sampling_mode=mode,
        )
        for mode, expected in {
            "STRICT_ALIGN_CORNERS": bilinear(8, 10, align_corners=True),
            "ALIGN_CORNERS": bilinear(8, 10, align_corners=True),
            "UNALIGN_CORNERS": bilinear(8, 10),
            "DEFAULT": asymmetric,
        }.items()
    ),
    with_arguments(
        "resize_bilinear",
        offset_corners,
        normal(2, 3, 3, 3),
        target_size_height=4,
        target_size_width=4,
        sampling_mode="OFFSET_CORNERS",
    ),
    with_arguments(
        "resize",
        bilinear(8, 5),
        normal(2, 3, 4, 5),
        7,
        shape=[0, 8, 0],
        resized_dims=np.uint32(3),
        sampling_mode="UNALIGN_CORNERS",
    ),
    with_arguments(
        "resize",
        bilinear(3, 10),
        normal(2, 3, 4, 5),
        7,
        shape=[1, 3, 10],
        resized_dims=np.uint32(2),
        interpolation_mode="LINEAR",
        sampling_mode="UNALIGN_CORNERS",
    ),
    with_arguments(
        "resize",
        lambda x: F.interpolate(x, (8, 5)),
        normal(2, 3, 4, 5),
        7,
        shape=[8, 0],
        resized_dims=np.uint32(2),
        interpolation_mode="NEAREST_NEIGHBOR",
        sampling_mode="DEFAULT",
    ),
]

CONSTANT = [
    Case("const", lambda x: mb.add(x=x, y=Y), lambda x: x + torch.from_numpy(Y), (X,)),
    unary("identity", lambda x: x, X),
    with_arguments("cast", lambda x: x.int(), 9 * normal(3, 4), dtype="int32"),
    with_arguments("cast", lambda x: x.half(), normal(3, 4), 6, dtype="fp16"),
    Case(
        "fill",
        lambda x: mb.mul(x=x, y=mb.fill(shape=mb.shape(x=x), value=2.0)),
        lambda x: 2 * x,
        (X,),
    ),
    Case(
        "fill_like", lambda x: mb.fill_like(ref_tensor=x, value=3.0), lambda x: 0 * x + 3, (X,), 6
    ),
    unary("shape", lambda x: torch.tensor(x.shape), X),
    Case(
        "range_1d",
        lambda x: mb.range_1d(start=1, end=mb.reduce_max(x=x), step=3),
        lambda x: torch.arange(1, int(x.max()), 3),
        (np.array([9, 14], np.int32),),
    ),
    Case(
        "one_hot",
        lambda x: mb.one_hot(indices=x, one_hot_vector_size=4, axis=0, on_value=4, off_value=-1),
        lambda x: F.one_hot(x.long(), 4).permute(2, 0, 1) * 5 - 1,
        (whole(2, 3, low=0, high=4),),
    ),
]


def compressed(
    name: str, dense: np.ndarray, opset: int = 6, note: str = "", **arguments: Any
) -> Case:
    """Added to an input: what is constant alone would be no output of a package."""
    dense = dense.astype(np.float32)
    return Case(
        name,
        lambda x: mb.add(x=x, y=getattr(mb, name)(**arguments)),
        lambda x: x + torch.from_numpy(dense),
        (normal(*dense.shape),),
        opset,
        note,
    )


BYTES = RNG.integers(0, 256, (4, 6)).astype(np.uint8)
SCALES = positive(4)
PALETTE = normal(4)
CODES = RNG.integers(0, 4, (3, 7)).astype(np.uint8)
PACKED = np.packbits(
    np.unpackbits(CODES.reshape(-1, 1), axis=1, bitorder="little")[:, :2], bitorder="little"
)
SPARSE = normal(3, 7) * (CODES > 1)
FOUR_BITS = RNG.integers(-8, 8, (4, 5)).astype(np.int8)
VECTORS = normal(2, 3)

COMPRESSION = [
    compressed(
        "constexpr_cast",
        SPARSE.astype(np.float16),
        source_val=SPARSE.astype(np.float16),
        output_dtype="fp32",
    ),
    compressed(
        "constexpr_affine_dequantize",
        SCALES[:, None] * (BYTES.astype(np.float32) - 7),
        quantized_data=BYTES,
        zero_point=np.uint8(7),
        scale=SCALES,
        axis=0,
    ),
    compressed(
        "constexpr_lut_to_dense",
        PALETTE[CODES],
        indices=PACKED,
        lut=PALETTE,
        shape=np.array(CODES.shape, np.uint32),
    ),
    compressed(
        "constexpr_sparse_to_dense",
        SPARSE,
        nonzero_data=SPARSE[CODES > 1],
        mask=np.packbits(CODES.reshape(-1) > 1, bitorder="little"),
        shape=np.array(CODES.shape, np.uint32),
    ),
    compressed(
        "constexpr_blockwise_shift_scale",
        SCALES.reshape(2, 2).repeat(2, 0).repeat(3, 1) * (BYTES.astype(np.float32) - 7),
        8,
        data=BYTES,
        scale=SCALES.reshape(2, 2),
        offset=np.full((2, 2), 7, np.uint8),
    ),
    compressed(
        "constexpr_blockwise_shift_scale",
        SCALES[:, None] * FOUR_BITS,
        8,
        "int4",
        data=FOUR_BITS.astype(types.np_int4_dtype),
        scale=SCALES[:, None],
    ),
    compressed(
        "constexpr_lut_to_dense",
        np.where(np.arange(3)[:, None] < 1, PALETTE[CODES], 2 * PALETTE[CODES]),
        8,
        "a palette to a row",
        indices=CODES.astype(types.np_uint2_dtype),
        lut=np.stack([PALETTE, 2 * PALETTE, 2 * PALETTE]).reshape(3, 1, 4, 1),
    ),
    compressed(
        "constexpr_lut_to_dense",
        VECTORS[(CODES > 1).astype(int)].transpose(0, 2, 1).reshape(9, 7),
        8,
        "vectors",
        indices=(CODES > 1).astype(types.np_uint1_dtype),
        lut=VECTORS.reshape(1, 1, 2, 3),
        vector_axis=0,
    ),
    compressed(
        "constexpr_sparse_to_dense",
        SPARSE,
        8,
        "mask",
        nonzero_data=SPARSE[CODES > 1],
        mask=(CODES > 1).astype(types.np_uint1_dtype),
    ),
]

CASES = [
    *ELEMENTWISE,
    *ACTIVATION,
    *LINEAR,
    *CONVOLUTION,
    *NORMALIZATION,
    *REDUCTION,
    *POOLING,
    *SHAPING,
    *INDEXING,
    *RESIZING,
    *CONSTANT,
    *COMPRESSION,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.op}[{case.note}]")
def test_operation_agrees_with_torch(case: Case, run: Callable[..., Any]) -> None:
    found = run(case.build, case.inputs, case.opset)
    expected = case.expected(*tensors(*case.inputs))
    expected = list(expected) if isinstance(expected, tuple | list) else [expected]
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        reference = theirs.numpy()
        assert ours.shape == reference.shape
        assert ours.dtype.kind == reference.dtype.kind or reference.dtype == np.bool_
        np.testing.assert_allclose(ours, reference, rtol=3e-6, atol=3e-6)


def test_every_operation_has_a_case() -> None:
    """Here, or in a test file of its own beside this one."""
    files = [path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py")]
    elsewhere = {
        name
        for name in OPERATIONS
        for text in files
        if f"mb.{name}(" in text or f'"{name}", ' in text or f'run, "{name}"' in text
    }
    # The converter adds it to classifiers; it cannot be built alone.
    assert {case.op for case in CASES} | elsewhere | {"classify"} == set(OPERATIONS)
