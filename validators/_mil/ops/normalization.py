"""Normalisation layers; means are summed in float64, as numpy's float32 sums are not pairwise
along every axis."""

from __future__ import annotations

import numpy as np

from slide_deploy.validators._mil.dtypes import Array
from slide_deploy.validators._mil.ops.registry import Ints, Note, operation

__all__ = ["batch_norm", "instance_norm", "l2_norm", "layer_norm", "local_response_norm"]


@operation("batch_norm", mixes=("mean", "variance", "gamma", "beta"))
def batch_norm(
    x: Array,
    mean: Array,
    variance: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    epsilon: float = 1e-5,
) -> Array:
    """(x - mean) / sqrt(variance + epsilon) gamma + beta, with a value of each per channel."""
    scale = 1 / np.sqrt(variance + epsilon)
    result = (x - _along(mean, x, (1,))) * _along(scale, x, (1,))
    return _scaled(result, gamma, beta, (1,))


@operation("instance_norm", mixes=("gamma", "beta"))
def instance_norm(
    x: Array, gamma: Array | None = None, beta: Array | None = None, epsilon: float = 1e-5
) -> Array:
    """Each channel of each image to mean 0 and variance 1."""
    return _scaled(_standardised(x, tuple(range(2, x.ndim)), epsilon), gamma, beta, (1,))


@operation("layer_norm", mixes=("gamma", "beta"))
def layer_norm(
    x: Array,
    axes: Ints | None = None,
    gamma: Array | None = None,
    beta: Array | None = None,
    epsilon: float = 1e-5,
) -> Array:
    """Mean 0 and variance 1 over `axes`; gamma and beta have the shape of those axes."""
    over = tuple(range(x.ndim)) if axes is None else tuple(sorted(a % x.ndim for a in axes))
    return _scaled(_standardised(x, over, epsilon), gamma, beta, over)


@operation("l2_norm")
def l2_norm(x: Array, epsilon: float = 1e-6) -> Array:
    """x over the Euclidean norm of its last three axes."""
    if x.ndim < 3:
        raise ValueError(f"x of rank {x.ndim}, not at least 3")
    squares = np.square(x).sum((-3, -2, -1), dtype=np.float64, keepdims=True)
    result: Array = x / np.sqrt(squares + epsilon).astype(x.dtype)
    return result


@operation("local_response_norm")
def local_response_norm(
    x: Array, size: int, note: Note, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Array:
    """x over (k + alpha / size * squares of `size` neighbouring channels) ** beta."""
    if size < 1:
        raise ValueError(f"size {size}")
    if size % 2 == 0:
        note("an even number of channels has one more before than after")
    squares = np.square(x, dtype=np.float64)
    edges = [(0, 0)] * x.ndim
    edges[1] = (size // 2, (size - 1) // 2)
    padded = np.pad(squares, edges)
    total = sum(padded[:, i : i + x.shape[1]] for i in range(size))
    return (x / (k + alpha / size * total) ** beta).astype(np.float32)


def _standardised(x: Array, axes: Ints, epsilon: float) -> Array:
    result: Array = x - x.mean(axes, dtype=np.float64, keepdims=True).astype(x.dtype)
    variance = np.square(result).mean(axes, dtype=np.float64, keepdims=True)
    result *= (1 / np.sqrt(variance + epsilon)).astype(x.dtype)
    return result


def _scaled(result: Array, gamma: Array | None, beta: Array | None, axes: Ints) -> Array:
    if gamma is not None:
        result *= _along(gamma, result, axes)
    if beta is not None:
        result += _along(beta, result, axes)
    return result


def _along(parameter: Array, x: Array, axes: Ints) -> Array:
    """A parameter over some axes of x, shaped to broadcast with it."""
    if parameter.shape != tuple(x.shape[a] for a in axes):
        raise ValueError(f"a parameter of shape {parameter.shape} for axes {axes} of {x.shape}")
    return parameter.reshape([size if a in axes else 1 for a, size in enumerate(x.shape)])
