"""Activation functions."""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from slide_deploy.validators._mil.dtypes import Array
from slide_deploy.validators._mil.interpolation import interpolated
from slide_deploy.validators._mil.ops.registry import operation

__all__ = [
    "clamped_relu",
    "elu",
    "gelu",
    "leaky_relu",
    "linear_activation",
    "prelu",
    "relu",
    "relu6",
    "scaled_tanh",
    "sigmoid",
    "sigmoid_hard",
    "silu",
    "softmax",
    "softplus",
    "softplus_parametric",
    "softsign",
    "thresholded_relu",
]

# Elements of a row that is better reduced as a column.
_SHORT = 64


@operation("relu", pointwise=True)
def relu(x: Array) -> Array:
    """max(x, 0)."""
    return np.maximum(x, 0)


@operation("relu6", pointwise=True)
def relu6(x: Array) -> Array:
    """x clipped to 0 to 6."""
    result: Array = np.minimum(np.maximum(x, 0), 6)
    return result


@operation("leaky_relu", pointwise=True)
def leaky_relu(x: Array, alpha: float) -> Array:
    """x, or alpha x below zero."""
    return np.where(x >= 0, x, x * alpha)


@operation("clamped_relu", pointwise=True)
def clamped_relu(x: Array, alpha: float, beta: float) -> Array:
    """x, or alpha x below zero, and at most beta."""
    return np.minimum(leaky_relu(x, alpha), beta)


@operation("thresholded_relu", pointwise=True)
def thresholded_relu(x: Array, alpha: float) -> Array:
    """x from alpha on, else 0."""
    return np.where(x >= alpha, x, x.dtype.type(0))


@operation("prelu", mixes=("alpha",))
def prelu(x: Array, alpha: Array) -> Array:
    """x, or alpha x below zero with one alpha per channel."""
    return np.where(x > 0, x, x * _by_channel(alpha, x))


@operation("elu", pointwise=True)
def elu(x: Array, alpha: float) -> Array:
    """x, or alpha (e^x - 1) below zero."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


@operation("linear_activation", pointwise=True)
def linear_activation(x: Array, alpha: float, beta: float) -> Array:
    """alpha x + beta."""
    return x * alpha + beta


@operation("scaled_tanh", pointwise=True)
def scaled_tanh(x: Array, alpha: float, beta: float) -> Array:
    """alpha tanh(beta x)."""
    return alpha * np.tanh(x * beta)


@operation("sigmoid", pointwise=True)
def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x)."""
    result: Array = special.expit(x)
    return result


@operation("sigmoid_hard", pointwise=True)
def sigmoid_hard(x: Array, alpha: float, beta: float) -> Array:
    """alpha x + beta, clipped to 0 to 1."""
    result: Array = np.minimum(np.maximum(linear_activation(x, alpha, beta), 0), 1)
    return result


@operation("silu", pointwise=True)
def silu(x: Array) -> Array:
    """x sigmoid(x)."""
    return x * sigmoid(x)


@operation("softplus", pointwise=True)
def softplus(x: Array) -> Array:
    """log(1 + e^x), without overflow."""
    result: Array = np.logaddexp(x, x.dtype.type(0))
    return result


@operation("softplus_parametric", mixes=("alpha", "beta"))
def softplus_parametric(x: Array, alpha: Array, beta: Array) -> Array:
    """alpha log(1 + e^(beta x)) with one alpha and beta per channel."""
    return _by_channel(alpha, x) * softplus(x * _by_channel(beta, x))


@operation("softsign", pointwise=True)
def softsign(x: Array) -> Array:
    """x / (1 + |x|)."""
    result: Array = x / (1 + np.abs(x))
    return result


@operation("gelu", pointwise=True)
def gelu(x: Array, mode: str = "EXACT") -> Array:
    """x Phi(x), or one of its two usual approximations."""
    if mode == "EXACT":
        return interpolated(_x_phi, x)
    if mode == "TANH_APPROXIMATION":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))
        factor: Array = 0.5 * (1 + np.tanh(inner))
    elif mode == "SIGMOID_APPROXIMATION":
        factor = sigmoid(1.702 * x)
    else:
        raise ValueError(f"unknown mode {mode!r}")
    return x * factor


@operation("softmax")
def softmax(x: Array, axis: int = -1) -> Array:
    """e^x over its sum along one axis."""
    if x.shape[axis] > _SHORT:
        return _softmax(x, axis)
    # numpy is slow along short rows: the axis goes first, in memory too.
    return np.moveaxis(_softmax(np.ascontiguousarray(np.moveaxis(x, axis, 0)), 0), 0, axis)


def _softmax(x: Array, axis: int) -> Array:
    result: Array = x - x.max(axis, keepdims=True)
    np.exp(result, out=result)
    result /= result.sum(axis, keepdims=True)
    return result


def _x_phi(x: Array) -> Array:
    """x Phi(x), where Phi is (1 + erf(x / sqrt 2)) / 2 without its cancellation far below zero."""
    result: Array = x * special.ndtr(x)
    return result


def _by_channel(parameter: Array, x: Array) -> Array:
    """A vector over axis 1 of x, shaped to broadcast with it."""
    if parameter.shape != x.shape[1:2]:
        raise ValueError(f"{parameter.shape} is not one value to a channel of {x.shape}")
    return parameter.reshape(-1, *[1] * (x.ndim - 2))
