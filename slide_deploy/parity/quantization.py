"""Whether an artifact is quantized as its float32 artifact and its calibration set tell."""

from __future__ import annotations

import numpy as np

from slide_deploy.protocols import QuantizedTensor

__all__ = ["dequantized", "quantization_problem"]

# Quantizers round to the nearest integer: half a step, and what float32 rounds in computing it.
HALF = 0.501

# The share of a range by which its ends may differ, where the same runtime computes them again.
END_TOLERANCE = 5e-7

# Quantizers give a channel a larger scale where its bias would not fit into 32 bits otherwise.
# Such a channel is far below the largest one, and so is its rounding.
SMALL_CHANNEL = 1e-4


def quantization_problem(tensor: QuantizedTensor) -> str:
    """What is wrong with a quantized tensor; empty if it is as it must be.

    Each weight must be within half a step of the float32 artifact's, with a scale that the
    largest weight of its channel needs. The ends of an activation's range must be within half a
    step of those on the calibration set, zero included.
    """
    if not (np.isfinite(tensor.scale).all() and (tensor.scale > 0).all()):
        return f"{tensor.name} has a scale that is not a positive number"
    return _weights_problem(tensor) if tensor.weights is not None else _range_problem(tensor)


def dequantized(tensor: QuantizedTensor) -> np.ndarray:
    """The real values of a tensor's integers, in float64."""
    assert tensor.integers is not None
    scale, zero_point = (_along(tensor, values) for values in (tensor.scale, tensor.zero_point))
    return np.asarray(scale * (tensor.integers.astype(np.float64) - zero_point))


def _weights_problem(tensor: QuantizedTensor) -> str:
    assert tensor.weights is not None
    assert tensor.integers is not None
    weights = tensor.weights.astype(np.float64)
    axis_fits = tensor.scale.size in (1, *weights.shape[tensor.axis : tensor.axis + 1])
    if not axis_fits or tensor.zero_point.size != tensor.scale.size:
        return f"{tensor.name} has {tensor.scale.size} scales along axis {tensor.axis}"
    scale = _along(tensor, tensor.scale)
    if tensor.product is not None:
        if not np.allclose(tensor.scale, tensor.product, rtol=1e-5, atol=0):
            return f"{tensor.name} has a scale that is not that of its operator's input and weights"
    else:
        others = tuple(a for a in range(weights.ndim) if tensor.scale.size > 1 and a != tensor.axis)
        largest = np.abs(weights).max(axis=others or None, keepdims=bool(others), initial=0.0)
        needed = 2 * largest / (tensor.high - tensor.low - 1)
        coarse = (scale > 1.001 * needed) & (largest > SMALL_CHANNEL * largest.max(initial=0.0))
        if coarse.any():
            ratio = float((scale / needed)[coarse].max())
            return f"{tensor.name} has a scale {ratio:.3g} times as large as its weights need"
    steps = np.abs(dequantized(tensor) - weights) / scale
    # The scale itself is rounded to its type, by which the largest integers move most.
    largest_integer = np.abs(tensor.integers.astype(np.int64)).max(initial=0)
    rounding = float(largest_integer) * float(np.finfo(tensor.scale.dtype).eps) / 2
    allowed = HALF + rounding
    # Some quantizers let the largest weight, of one sign or both, be one step beyond the last one.
    clipped = (steps <= 1 + rounding) & (np.abs(weights) > scale * tensor.high)
    if wrong := int(((steps > allowed) & ~clipped).sum()):
        return (
            f"{tensor.name} has {wrong} of {steps.size} weights that are not the nearest integers "
            f"(the worst is {float(steps.max()):.3g} steps off)"
        )
    return ""


def _range_problem(tensor: QuantizedTensor) -> str:
    assert tensor.observed is not None
    low, high = min(tensor.observed[0], 0.0), max(tensor.observed[1], 0.0)
    if low == high:  # constant zero: any scale has a step for it
        return ""
    scale, zero_point = float(tensor.scale.max()), float(tensor.zero_point.max())
    steps = tensor.high - tensor.low
    ends = (scale * (tensor.low - zero_point), scale * (tensor.high - zero_point))
    off = sorted((abs(ends[0] - low), abs(ends[1] - high)))
    slack = END_TOLERANCE * steps
    near = off[1] <= scale * (HALF + slack)
    # Or one end is moved outwards, so that zero is an integer.
    zero = round(-low / (high - low) * steps)
    widened = off[0] <= scale * slack and abs(tensor.low + zero - zero_point) <= slack
    # Or the range is symmetric, and its largest size is that of the values.
    size = max(-low, high)
    symmetric = abs(zero_point) <= slack and abs(scale * tensor.high - size) <= scale * slack
    if tensor.scale.size == 1 and (near or widened or symmetric):
        return ""
    return (
        f"{tensor.name} has the range {ends[0]:.4g} to {ends[1]:.4g}, {off[1] / scale:.3g} steps "
        f"off that of the calibration set, {low:.4g} to {high:.4g}"
    )


def _along(tensor: QuantizedTensor, values: np.ndarray) -> np.ndarray:
    """One value per index of the tensor's axis, with the tensor's rank."""
    wide = values.astype(np.float64)
    if wide.size == 1 or tensor.integers is None:
        return wide.reshape(())
    shape = [1] * tensor.integers.ndim
    shape[tensor.axis] = wide.size
    return wide.reshape(shape)
