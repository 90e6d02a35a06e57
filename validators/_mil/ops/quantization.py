"""Activations to 8-bit integers and back."""

from __future__ import annotations

import numpy as np

from slide_deploy.validators._mil.dtypes import Array, dtype_named
from slide_deploy.validators._mil.ops.registry import operation

__all__ = ["dequantize", "quantize"]


@operation("quantize")
def quantize(
    input: Array,
    scale: Array,
    output_dtype: str,
    zero_point: Array | None = None,
    axis: int | None = None,
) -> Array:
    """round(input / scale) + zero_point, clipped to the range of the type.

    Halves are rounded to even, as in coremltools' constant folding.
    """
    if output_dtype not in ("int8", "uint8"):
        raise ValueError(f"output_dtype {output_dtype!r}")
    wanted = dtype_named(output_dtype).numpy
    steps = np.rint(input / _along(scale, input, axis))
    if zero_point is not None:
        if zero_point.dtype != wanted or zero_point.shape != scale.shape:
            raise ValueError(f"zero_point {zero_point.dtype} {zero_point.shape}")
        steps = steps + _along(zero_point, input, axis).astype(np.float32)
    if np.isnan(steps).any():
        raise ValueError("a value that is not a number")
    limits = np.iinfo(wanted)
    return np.clip(steps, limits.min, limits.max).astype(wanted)


@operation("dequantize")
def dequantize(
    input: Array, scale: Array, zero_point: Array | None = None, axis: int | None = None
) -> Array:
    """scale (input - zero_point)."""
    if input.dtype not in (np.int8, np.uint8):
        raise ValueError(f"an input of type {input.dtype}")
    shifted = input.astype(np.float32)
    if zero_point is not None:
        if zero_point.dtype != input.dtype or zero_point.shape != scale.shape:
            raise ValueError(f"zero_point {zero_point.dtype} {zero_point.shape}")
        shifted = shifted - _along(zero_point, input, axis).astype(np.float32)
    result: Array = shifted * _along(scale, input, axis)
    return result


def _along(parameter: Array, x: Array, axis: int | None) -> Array:
    """A scalar, or a vector along `axis`, shaped to broadcast with x."""
    if parameter.ndim == 0 and axis is None:
        return parameter
    if parameter.ndim != 1 or axis is None or parameter.size != x.shape[axis]:
        raise ValueError(f"a parameter of shape {parameter.shape} for axis {axis} of {x.shape}")
    return parameter.reshape([-1 if a == axis % x.ndim else 1 for a in range(x.ndim)])
