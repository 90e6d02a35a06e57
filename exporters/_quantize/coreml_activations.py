"""Quantizes the activations of Core ML packages, by operations of MIL around products."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from slide_deploy.errors import ConversionError

__all__ = ["quantize_activations"]

# The products that coremltools' own quantization of activations surrounds.
QUANTIZED = ("conv", "linear")

# The range is symmetric, as coremltools' default is: Core ML is faster without a zero point.
LARGEST = 127

# The specification of iOS 17, the first with `quantize` and `dequantize`.
SPECIFICATION = 8


def quantize_activations(package: Any, ranges: Mapping[str, tuple[float, float]]) -> Any:
    """The `MLModel` with `quantize` and `dequantize` before and after each product.

    `ranges` has the smallest and the largest value of each tensor, by name. A tensor stays in
    float16 if float16 cannot hold its scale at full accuracy. Raises ConversionError if a value is
    infinite or not a number.

    coremltools 9.0 has passes that insert the same operations. They are not used, because they
    compute ranges and scales in float16, in which the width of a range overflows from 32752 on.
    """
    from coremltools.converters.mil.mil.passes.graph_pass import AbstractGraphPass
    from coremltools.models.utils import _apply_graph_pass

    class Surround(AbstractGraphPass):  # type: ignore[misc]  # coremltools has no types
        def apply(self, prog: Any) -> None:
            for function in prog.functions.values():
                _surround(function, ranges)

    return _apply_graph_pass(package, Surround(), SPECIFICATION, skip_model_load=True)


def _surround(block: Any, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Quantize what the products of a block read and write, each value once."""
    dequantized: dict[Any, Any] = {}

    def quantized(value: Any, before: Any) -> Any | None:
        if value not in dequantized:
            scale = _scale(value.name, ranges[value.name])
            dequantized[value] = None if scale is None else _pair(value, scale, before)
        return dequantized[value]

    with block:
        operations = list(block.operations)
        for op, after in zip(operations, [*operations[1:], None], strict=True):
            if op.op_type not in QUANTIZED:
                continue
            value, result = op.inputs["x"], op.outputs[0]
            given = value.op is None or value.op.op_type not in ("const", "dequantize")
            if given and (new := quantized(value, op)) is not None:
                op.set_inputs(x=new)
            if after is None or result in block.outputs:
                continue
            if (new := quantized(result, after)) is not None:
                block.replace_uses_of_var_after_op(anchor_op=new.op, old_var=result, new_var=new)


def _pair(value: Any, scale: np.float16, before: Any) -> Any:
    from coremltools.converters.mil import Builder as mb

    with mb.set_before_op(before):
        integers = mb.quantize(input=value, scale=scale, output_dtype="int8")
        return mb.dequantize(input=integers, scale=scale)


def _scale(name: str, ends: tuple[float, float]) -> np.float16 | None:
    """The scale of a symmetric range in float16; None where it would be too small for its full
    accuracy. It is rounded down, so that no integer stands for an infinite value."""
    size = max(-ends[0], ends[1])
    if not np.isfinite(size) or np.isnan(ends).any():
        raise ConversionError(
            f"{name} overflows float16 on the calibration set, so that it has no range",
            "use another --lowering, or --precision fp32 on this target",
        )
    scale = np.float16(size / LARGEST)
    if float(scale) * LARGEST > size:
        scale = np.nextafter(scale, np.float16(0))
    return None if scale < np.finfo(np.float16).smallest_normal else scale
