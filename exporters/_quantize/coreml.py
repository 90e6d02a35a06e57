"""Compresses the weights of Core ML packages with coremltools, which needs no Mac for it."""

from __future__ import annotations

from pathlib import Path

from slide_deploy.errors import MissingLibrary, UsageError
from slide_deploy.exporters._coreml.package import save_package
from slide_deploy.protocols import Calibration
from slide_deploy.types import Options

__all__ = ["COMPRESSIONS", "parse_compression", "quantize"]

COMPRESSIONS = ("linear", "palette")

# What is added to the logits of an attention may hold masks, beside which all else would be zero.
PRODUCTS = ("conv", "linear", "matmul")

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
    palettes of 256 values, found by k-means, per tensor. Activations are not changed.

    Raises MissingLibrary for palettes without scikit-learn.
    """
    import coremltools as ct
    import coremltools.optimize.coreml as cto

    kind = parse_compression(options.target_options.get("compression", COMPRESSIONS[0]))
    if kind == "palette":
        try:
            import sklearn  # noqa: F401  # coremltools takes its k-means
        except ImportError:
            raise MissingLibrary("finding palettes", ("scikit-learn",), "quantize") from None
    package = ct.models.MLModel(str(program), skip_model_load=True)
    fewest = FEWEST[kind]
    if kind == "linear":
        compress = cto.linear_quantize_weights
        way = cto.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=fewest)
    else:
        compress = cto.palettize_weights
        way = cto.OpPalettizerConfig(mode="kmeans", nbits=8, weight_threshold=fewest)
    config = cto.OptimizationConfig(op_type_configs=dict.fromkeys(PRODUCTS, way))
    compressed = compress(package, config)
    save_package(compressed, path, calibration.metadata, options.target_options)
