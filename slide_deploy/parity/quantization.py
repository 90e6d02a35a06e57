"""Whether the tensors of an artifact are those of its float artifact, quantized or rounded."""

from __future__ import annotations

import numpy as np

from slide_deploy.protocols import QuantizedTensor, RoundedTensor

__all__ = ["dequantized", "is_folded", "quantization_problem", "rounding_problem"]

# Quantizers round to the nearest integer: half a step, and what float32 rounds in computing it.
HALF = 0.501

# The share of a range by which its ends may differ, where the same runtime computes them again.
END_TOLERANCE = 5e-7

# Quantizers give a channel a larger scale where its bias would not fit into 32 bits otherwise.
# Such a channel is far below the largest one, and so is its rounding.
SMALL_CHANNEL = 1e-4

# Palettes are found in float32 and stored in float16: its step at the largest weight.
PALETTE_ROUNDING = 2.0**-10

# Converters fold constants in float16, such as the sum of two embeddings. What this rounds, as a
# multiple of float16's rounding error at the largest number; a bicubic resize sums 16 numbers.
FOLDING = 8

# What a palette may lose, as a multiple of what evenly spaced values lose on even weights.
COARSE_PALETTE = 1.5


def quantization_problem(tensor: QuantizedTensor) -> str:
    """What is wrong with a quantized tensor; empty if it is as it must be.

    Each weight must be within half a step of the float32 artifact's, with a scale that the
    largest weight of its channel needs; of a palette, each must be the nearest value, and each
    value near the weights that it stands for. The ends of an activation's range must be within
    half a step of those on the calibration set, zero included.
    """
    if tensor.palette is not None:
        return _palette_problem(tensor, tensor.palette)
    if not (np.isfinite(tensor.scale).all() and (tensor.scale >= 0).all()):
        return f"{tensor.name} has a scale that is not a positive number"
    return _weights_problem(tensor) if tensor.weights is not None else _range_problem(tensor)


def rounding_problem(tensor: RoundedTensor) -> str:
    """What is wrong with a constant of a float16 artifact; empty if it is as it must be.

    Each number must be the float32 artifact's, rounded to the nearest one of its type; some
    constants stay float32.
    """
    if tensor.stored.shape != tensor.weights.shape:
        return f"{tensor.name} has shape {tensor.stored.shape}, not {tensor.weights.shape}"
    with np.errstate(over="ignore"):
        meant = tensor.weights.astype(tensor.stored.dtype)
    if wrong := int((~np.isclose(tensor.stored, meant, rtol=0, atol=0, equal_nan=True)).sum()):
        return f"{tensor.name} has {wrong} of {meant.size} numbers that are not the rounded weights"
    return ""


def is_folded(tensor: RoundedTensor, again: RoundedTensor) -> bool:
    """Whether a constant is what the converter folds in float16, as another export of the same
    model, `again`, shows."""
    if not np.array_equal(tensor.stored, again.stored):
        return False
    error = np.abs(tensor.stored.astype(np.float64) - tensor.weights)
    return bool((error <= FOLDING * 2.0**-11 * np.abs(tensor.weights).max(initial=0.0)).all())


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
    if ((scale == 0) & (weights != 0)).any():
        return f"{tensor.name} has a scale of zero for weights that are not"
    scale = np.where(scale == 0, 1.0, scale)
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
    # The scale itself is rounded to its type, by which large integers move most.
    sizes = np.abs(tensor.integers.astype(np.int64)) + 1
    rounding = sizes * float(np.finfo(tensor.scale.dtype).eps) / 2
    allowed = HALF + rounding
    # Some quantizers let the largest weight, of one sign or both, be one step beyond the last one.
    at_end = sizes > tensor.high
    clipped = at_end & (steps <= 1 + rounding) & (np.abs(weights) > scale * tensor.high)
    if wrong := int(((steps > allowed) & ~clipped).sum()):
        return (
            f"{tensor.name} has {wrong} of {steps.size} weights that are not the nearest integers "
            f"(the worst is {float(steps.max()):.3g} steps off)"
        )
    return ""


def _palette_problem(tensor: QuantizedTensor, palette: np.ndarray) -> str:
    assert tensor.weights is not None
    assert tensor.integers is not None
    weights = tensor.weights.reshape(-1).astype(np.float64)
    values, chosen = palette.astype(np.float64), tensor.integers.reshape(-1)
    if not np.isfinite(values).all():
        return f"{tensor.name} has a palette value that is not a number"
    rounding = np.abs(weights).max(initial=0.0) * PALETTE_ROUNDING
    ordered = np.sort(values)
    right = np.searchsorted(ordered, weights).clip(1, ordered.size - 1)
    nearest = np.abs(ordered[np.stack([right - 1, right])] - weights).min(axis=0)
    error = np.abs(values[chosen] - weights)
    if wrong := int((error > nearest + rounding).sum()):
        return f"{tensor.name} has {wrong} of {error.size} weights that are not the nearest values"
    lowest, highest = np.full(values.size, np.inf), np.full(values.size, -np.inf)
    np.minimum.at(lowest, chosen, weights)
    np.maximum.at(highest, chosen, weights)
    spacing = float(np.ptp(weights)) / (values.size - 1)
    # Searches for palettes end before each value is the mean of its weights.
    outside = (values < lowest - spacing - rounding) | (values > highest + spacing + rounding)
    if outside[np.unique(chosen)].any():
        return f"{tensor.name} has a palette value beside the weights that it stands for"
    even = spacing / np.sqrt(12)
    if float(np.sqrt(np.square(error).mean())) > COARSE_PALETTE * even + rounding:
        return f"{tensor.name} has a palette coarser than evenly spaced values"
    return ""


def _range_problem(tensor: QuantizedTensor) -> str:
    assert tensor.observed is not None
    low, high = min(tensor.observed[0], 0.0), max(tensor.observed[1], 0.0)
    if low == high:  # constant zero: any scale has a step for it
        return ""
    scale, zero_point = float(tensor.scale.max()), float(tensor.zero_point.max())
    if scale == 0:
        return f"{tensor.name} has a scale of zero for values that are not"
    steps = tensor.high - tensor.low
    ends = (scale * (tensor.low - zero_point), scale * (tensor.high - zero_point))
    off = sorted((abs(ends[0] - low), abs(ends[1] - high)))
    # A scale in float16 is rounded, which moves the ends of its range.
    slack = (END_TOLERANCE + float(np.finfo(tensor.scale.dtype).eps)) * steps
    near = off[1] <= scale * (HALF + slack)
    # Or one end is moved outwards, so that zero is an integer; at an end it is one anyway.
    zero = round(-low / (high - low) * steps)
    moved = 0 < zero < steps and abs(tensor.low + zero - zero_point) <= slack
    widened = moved and off[0] <= scale * slack
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
