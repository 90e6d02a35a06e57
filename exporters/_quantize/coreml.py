"""Quantizes Core ML packages without a Mac: weights with coremltools, activations by ranges
that are measured in the runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from slide_deploy.errors import MissingLibrary, UsageError
from slide_deploy.exporters._coreml.package import save_package
from slide_deploy.exporters._quantize.coreml_activations import quantize_activations
from slide_deploy.protocols import Calibration
from slide_deploy.types import Options, Precision

__all__ = ["COMPRESSIONS", "parse_compression", "quantize"]

COMPRESSIONS = ("linear", "palette")

# What is quantized, with the axes of its weights along which there may be a scale for each index.
# Additions are not: what is added to the logits of an attention may hold masks, beside which all
# else would be zero.
PRODUCTS = {"conv": (0,), "linear": (0,), "matmul": (-1, -2)}

# The largest integer, and the smallest number that float16 holds at full accuracy.
LARGEST, SMALLEST_SCALE = 127, 2.0**-14

# The first with quantized activations; macOS14, watchOS10 and tvOS17 are of the same year.
FIRST_SYSTEM = "iOS17"

# Weights of fewer elements save less than what describes their scales or palette.
FEWEST = {"linear": 64, "palette": 4096}


def parse_compression(value: object) -> str:
    """One of `COMPRESSIONS`; UsageError for anything else."""
    if value not in COMPRESSIONS:
        raise UsageError(
            f"Core ML has no compression {str(value)[:20]!r}", f"known: {', '.join(COMPRESSIONS)}"
        )
    return str(value)


def quantize(program: Path, path: Path, calibration: Calibration, options: Options) -> None:
    """Write `path` from the float package `program`: symmetric weights per output channel, or
    palettes of 256 values, found by k-means, per tensor. For w8a8 activations are symmetric by
    their largest size on the calibration set.

    Raises MissingLibrary for palettes without scikit-learn, UsageError for options that w8a8 does
    not have.
    """
    import coremltools as ct
    import coremltools.optimize.coreml as cto

    kind = parse_compression(options.target_options.get("compression", COMPRESSIONS[0]))
    if options.precision == Precision.W8A8:
        _check_options(kind, options)
    if kind == "palette":
        try:
            import sklearn  # noqa: F401  # coremltools takes its k-means
        except ImportError:
            raise MissingLibrary("finding palettes", ("scikit-learn",), "quantize") from None
    package = ct.models.MLModel(str(program), skip_model_load=True)
    if options.precision == Precision.W8A8:
        assert calibration.ranges is not None  # Core ML's runtime measures them
        package = quantize_activations(package, calibration.ranges())
    fewest = FEWEST[kind]
    if kind == "linear":
        compress = cto.linear_quantize_weights
        way = cto.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=fewest)
    else:
        compress = cto.palettize_weights
        way = cto.OpPalettizerConfig(mode="kmeans", nbits=8, weight_threshold=fewest)
    kept = dict.fromkeys(_too_small(package, fewest)) if kind == "linear" else {}
    config = cto.OptimizationConfig(
        op_type_configs=dict.fromkeys(PRODUCTS, way), op_name_configs=kept
    )
    compressed = compress(package, config)
    save_package(compressed, path, calibration.metadata, options.target_options)


def _too_small(package: Any, fewest: int) -> list[str]:
    """The names of weights with a channel so small that float16 cannot hold its scale at full
    accuracy; coremltools 9.0 makes the scale zero."""
    import coremltools.optimize.coreml as cto

    def is_too_small(weights: np.ndarray, axis: int) -> bool:
        others = tuple(a for a in range(weights.ndim) if a != axis % weights.ndim)
        largest = np.abs(weights).max(axis=others).astype(np.float32)
        return bool(((largest > 0) & (largest / LARGEST < SMALLEST_SCALE)).any())

    return [
        name
        for name, weights in cto.get_weights_metadata(package, weight_threshold=fewest).items()
        for op in weights.child_ops
        if op.op_type in PRODUCTS
        if any(is_too_small(weights.val, axis) for axis in PRODUCTS[op.op_type])
    ]


def _check_options(kind: str, options: Options) -> None:
    import coremltools as ct

    if kind != COMPRESSIONS[0]:
        raise UsageError(
            f"Core ML's w8a8 computes with integers, not with the values of a {kind}",
            f"omit --option compression={kind}, or use --precision w8",
        )
    system = options.deployment_target
    if system and getattr(ct.target, system) < ct.target[FIRST_SYSTEM]:
        raise UsageError(
            f"Core ML has 8-bit activations from {FIRST_SYSTEM} on; got {system}",
            f"use --deployment-target {FIRST_SYSTEM} or a later one, or --precision w8",
        )
