"""Quantizes OpenVINO models with NNCF."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from slide_deploy.errors import MissingLibrary
from slide_deploy.protocols import Calibration
from slide_deploy.types import Options, Precision

__all__ = ["quantize"]


def quantize(program: Path, path: Path, calibration: Calibration, options: Options) -> None:
    """Write the folder `path` from the float32 folder `program`: symmetric weights per output
    channel; for w8a8 activations by their smallest and largest value on the calibration set.

    Raises MissingLibrary without NNCF.
    """
    os.environ.setdefault("NNCF_CI", "1")  # sends nothing to its makers
    try:
        import nncf
    except ImportError:
        raise MissingLibrary("quantizing for OpenVINO", ("nncf",), "quantize") from None
    import openvino

    nncf.set_log_level(logging.ERROR)
    (description,) = program.glob("*.xml")
    model = openvino.Core().read_model(description)
    if options.precision == Precision.W8:
        model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
    else:
        runs = [dict(run) for run in calibration.runs]
        model = nncf.quantize(model, nncf.Dataset(runs), subset_size=len(runs), **_settings(nncf))
    for key, value in calibration.metadata.items():
        model.set_rt_info(value, ["slide_deploy", key])
    path.mkdir()
    openvino.save_model(model, path / description.name, compress_to_fp16=False)


def _settings(nncf: Any) -> dict[str, Any]:
    """Activations by their ends alone, and weights as they are, so that both can be checked.

    The patterns for transformers keep the additions of the residual path in float32. SmoothQuant
    and the correction of biases would change weights.
    """
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        AdvancedSmoothQuantParameters,
        OverflowFix,
    )
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    ends = RangeEstimatorParametersSet.MINMAX
    return {
        "model_type": nncf.ModelType.TRANSFORMER,
        "preset": nncf.QuantizationPreset.MIXED,
        "advanced_parameters": AdvancedQuantizationParameters(
            disable_bias_correction=True,
            overflow_fix=OverflowFix.DISABLE,  # for processors without VNNI, at a loss of one bit
            smooth_quant_alphas=AdvancedSmoothQuantParameters(convolution=-1, matmul=-1),
            activations_range_estimator_params=ends,
            weights_range_estimator_params=ends,
        ),
    }
