"""Compares two modules in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["RELATIVE_TOLERANCE", "error_on", "noise", "relative_error"]

# Exact rewritings differ by float64's rounding alone: some units of 2.2e-16.
RELATIVE_TOLERANCE = 1e-12


def noise(shape: Sequence[int]) -> Tensor:
    """Normal noise in float64, equal on every call."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(tuple(shape), dtype=torch.float64, generator=generator)


def relative_error(expected: Tensor, found: Tensor) -> float:
    """max |found − expected| / max |expected|, in float64.

    Infinity if the shapes differ. If `expected` is all zeros, the error is 0 if `found` is all
    zeros too, else infinity. NaN if one of them has NaN.
    """
    if expected.shape != found.shape:
        return math.inf
    if expected.numel() == 0:
        return 0.0
    expected, found = expected.double(), found.double()
    error, scale = float((found - expected).abs().max()), float(expected.abs().max())
    if scale == 0:
        return 0.0 if error == 0 else math.inf
    return error / scale


def error_on(
    x: Tensor, module: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor]
) -> float:
    """`relative_error` between the outputs of `module` and `other` for `x`."""
    with torch.no_grad():
        return relative_error(module(x), other(x))
