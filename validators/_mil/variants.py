"""Arithmetic of float16 in which Apple's processors are known, or likely, to differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from slide_deploy.validators._mil.dtypes import Array
from slide_deploy.validators._mil.halves import rounded
from slide_deploy.validators._mil.ops import OPERATIONS, convolution, linear
from slide_deploy.validators._mil.ops.registry import Exact, Implementation

__all__ = ["VARIANTS", "Variant"]

# Products that are summed before the sum is rounded; what processors do is not documented.
_BLOCK = 32
# From its logarithm on, the exponential of `softplus` overflows on the Neural Engine.
_LARGEST = 2.0**15


@dataclass(frozen=True, eq=False)
class Variant:
    """Operations on float16 that some processor computes in another way, and how that is known."""

    name: str
    source: str
    operations: Mapping[str, Implementation]


def _matmul(x: Array, y: Array, **options: Any) -> Array:
    """`matmul`, the sum rounded to float16 after each block of products."""
    if options.pop("transpose_x", False) and x.ndim > 1:
        x = x.swapaxes(-1, -2)
    if options.pop("transpose_y", False) and y.ndim > 1:
        y = y.swapaxes(-1, -2)

    def part(start: int) -> Array:
        some = slice(start, start + _BLOCK)
        return linear.matmul(x[..., some], y[..., some, :] if y.ndim > 1 else y[some], **options)

    return _summed(part, x.shape[-1], _BLOCK)


def _linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    def part(start: int) -> Array:
        some = slice(start, start + _BLOCK)
        return linear.linear(x[..., some], weight[:, some])

    total = _summed(part, x.shape[-1], _BLOCK)
    return total if bias is None else total + bias


def _conv(x: Array, weight: Array, bias: Array | None = None, **options: Any) -> Any:
    """`conv`; in several groups, where sums are short, as it is described."""
    if options.get("groups", 1) != 1:
        return convolution.conv(x, weight, bias, **options)
    channels = max(1, _BLOCK // prod(weight.shape[2:]))

    def part(start: int) -> Array:
        some = slice(start, start + channels)
        found = convolution.conv(x[:, some], weight[:, some], **options)
        return found.array if isinstance(found, Exact) else found

    total = _summed(part, x.shape[1], channels)
    return total if bias is None else total + bias.reshape(-1, *[1] * (x.ndim - 2))


def _summed(part: Callable[[int], Array], count: int, step: int) -> Array:
    total = rounded(part(0))
    for start in range(step, count, step):
        total = rounded(total + part(start))
    return total


def _softmax(x: Array, axis: int = -1) -> Array:
    exponentials = rounded(np.exp(rounded(x - x.max(axis, keepdims=True))))
    result: Array = exponentials / rounded(exponentials.sum(axis, keepdims=True))
    return result


def _gelu(x: Array, mode: str = "EXACT") -> Array:
    approximate = "TANH_APPROXIMATION" if mode == "EXACT" else mode
    result: Array = OPERATIONS["gelu"].function(x, approximate)
    return result


def _softplus(x: Array) -> Array:
    return np.where(x < np.log(_LARGEST), OPERATIONS["softplus"].function(x), np.float32(0))


def _variant(name: str, source: str, **functions: Callable[..., Array]) -> Variant:
    replaced = {
        kind: dataclasses.replace(OPERATIONS[kind], function=function)
        for kind, function in functions.items()
    }
    return Variant(name, source, replaced)


VARIANTS = (
    _variant(
        "sums in float16",
        "GPU with allowLowPrecisionAccumulationOnGPU; likely on the Neural Engine",
        matmul=_matmul,
        linear=_linear,
        conv=_conv,
    ),
    _variant("softmax in float16", "likely on the Neural Engine", softmax=_softmax),
    _variant("gelu by tanh", "an approximation in wide use; Apple's is not known", gelu=_gelu),
    _variant(
        "softplus overflows",
        "measured on the Neural Engine: github.com/apple/coremltools/issues/2687",
        softplus=_softplus,
    ),
)
