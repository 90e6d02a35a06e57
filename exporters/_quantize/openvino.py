"""Quantizes OpenVINO models with NNCF."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from slide_deploy.errors import MissingLibrary
from slide_deploy.exporters._quantize.activations import is_symmetric
from slide_deploy.protocols import Arrays, Calibration, Product
from slide_deploy.types import Options, Precision, ProductKind

__all__ = ["products", "quantize", "without_telemetry"]

# A MatMul without a constant is a product of activations.
PRODUCTS = {
    "Convolution": ProductKind.CONVOLUTION,
    "GroupConvolution": ProductKind.GROUPED,
    "MatMul": ProductKind.LINEAR,
}

LEVELS = 255  # steps of 8 bits
LOWEST, HIGHEST = -128, 127


def without_telemetry() -> None:
    """Let OpenVINO and NNCF, which are imported next, send nothing to their makers."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # not to import


def quantize(program: Path, path: Path, calibration: Calibration, options: Options) -> None:
    """Write the folder `path` from the float32 folder `program`: symmetric weights per output
    channel; for w8a8 activations by their smallest and largest value on the calibration set.

    Raises MissingLibrary without NNCF.
    """
    without_telemetry()
    try:
        import nncf
    except ImportError:
        raise MissingLibrary("quantizing for OpenVINO", ("nncf",), "quantize") from None
    import openvino

    nncf.set_log_level(logging.ERROR)
    (description,) = program.glob("*.xml")
    model = openvino.Core().read_model(description)
    # Of a Gather, NNCF takes the table for weights; ours holds what is added to logits.
    kept = nncf.IgnoredScope(names=sorted(calibration.kept), types=["Gather"], validate=False)
    origin = model.clone()
    if options.precision == Precision.W8:
        mode = nncf.CompressWeightsMode.INT8_SYM
        model = nncf.compress_weights(model, mode=mode, ignored_scope=kept)
        _store_small_scales(model, origin)
    else:
        # One run, because NNCF's ranges are replaced.
        data = nncf.Dataset([dict(calibration.runs[0])])
        model = nncf.quantize(model, data, subset_size=1, ignored_scope=kept, **_settings(nncf))
        observe = partial(_observed, origin, calibration.runs, program.with_suffix(".ranges.json"))
        _set_ranges(model, observe, is_symmetric(options))
    for key, value in calibration.metadata.items():
        model.set_rt_info(value, ["slide_deploy", key])
    path.mkdir()
    openvino.save_model(model, path / description.name, compress_to_fp16=False)


def products(program: Path) -> dict[str, Product]:
    """See `Exporter.products`."""
    without_telemetry()
    import openvino

    model = openvino.Core().read_model(next(program.glob("*.xml")))
    found = [node for node in model.get_ordered_ops() if node.get_type_name() in PRODUCTS]
    return {node.get_friendly_name(): _product(node) for node in found}


def _product(node: Any) -> Product:
    kind = PRODUCTS[node.get_type_name()]
    sources = [node.input_value(index).get_node().get_type_name() for index in range(2)]
    if kind is ProductKind.LINEAR and "Constant" not in sources:
        kind = ProductKind.ACTIVATIONS
    return Product(node.get_friendly_name().removeprefix("__module.").partition("/")[0], kind)


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


def _store_small_scales(model: Any, origin: Any) -> None:
    """Quantize weights again, with scales in float32, where a scale of NNCF's is below the normal
    numbers of float16 and so loses bits. This happens to the stem of a model that contains the
    preprocessing of pixels, which makes its weights small."""
    import openvino
    from openvino import opset13 as ops

    known = {node.get_friendly_name(): node for node in origin.get_ops()}
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Constant" or node.get_element_type() != openvino.Type.i8:
            continue
        product = _reader(_reader(node))
        found = np.array(product.input_value(1).get_node().data)
        if np.abs(found).min() >= np.finfo(np.float16).smallest_normal:
            continue
        weights = np.array(known[node.get_friendly_name()].data)
        axes = tuple(axis for axis, size in enumerate(found.shape) if size == 1)
        scale = np.abs(weights).max(axis=axes, keepdims=True) / np.float32(HIGHEST)
        scale[scale == 0] = 1
        integers = ops.constant(np.rint(weights / scale).astype(np.int8))
        integers.set_friendly_name(node.get_friendly_name())
        exact = ops.multiply(ops.convert(integers, "f32"), ops.constant(scale))
        exact.set_friendly_name(product.get_friendly_name())
        _reader(product).output(0).replace(exact.output(0))


def _reader(node: Any) -> Any:
    return next(iter(node.output(0).get_target_inputs())).get_node()


def _set_ranges(
    model: Any, observe: Callable[[list[Any]], list[tuple[float, float]]], symmetric: bool
) -> None:
    """Give each activation the range that it has in the float32 model, with zero as an integer, at
    the middle where it is `symmetric` and has negative values.

    NNCF 3.4 takes other ranges where it moves a quantizer before the split of q, k and v.
    """
    import openvino

    quantizers = [node for node in model.get_ops() if node.get_type_name() == "FakeQuantize"]
    observed = observe([node.input_value(0) for node in quantizers])
    for node, ends in zip(quantizers, observed, strict=True):
        low, high = min(0.0, ends[0]), max(0.0, ends[1])
        scale = (high - low) / LEVELS or 1.0
        low = -round(-low / scale) * scale
        if symmetric and low < 0:
            scale = max(-ends[0], ends[1]) / HIGHEST
            low = LOWEST * scale
        pair = (low, low + LEVELS * scale)
        for index, end in zip(range(1, 5), (*pair, *pair), strict=True):
            constant = openvino.opset13.constant(np.array(end, np.float32))
            node.input(index).replace_source_output(constant.output(0))


def _observed(
    origin: Any, runs: Sequence[Arrays], cache: Path, ports: list[Any]
) -> list[tuple[float, float]]:
    """The smallest and the largest value in `origin` of the ports of a model made from it; those
    in the file `cache` are not measured again."""
    names = [(port.get_node().get_friendly_name(), port.get_index()) for port in ports]
    keys = [f"{name}:{index}" for name, index in names]
    known = json.loads(cache.read_text()) if cache.exists() else {}
    new = {key: name for key, name in zip(keys, names, strict=True) if key not in known}
    if new:
        known |= dict(zip(new, _measured(origin, runs, list(new.values())), strict=True))
        cache.write_text(json.dumps(known))
    return [known[key] for key in keys]


def _measured(
    origin: Any, runs: Sequence[Arrays], names: list[tuple[str, int]]
) -> list[tuple[float, float]]:
    """The smallest and the largest value of these outputs of nodes, over all runs."""
    import openvino
    from openvino import opset13 as ops
    from openvino import properties

    known = {node.get_friendly_name(): node for node in origin.get_ops()}
    results = []
    for name, index in names:
        own = known[name].output(index)
        axes = ops.constant(np.arange(len(own.get_partial_shape()), dtype=np.int64))
        results += [ops.result(ops.reduce_min(own, axes)), ops.result(ops.reduce_max(own, axes))]
    first = len(origin.outputs)
    origin.add_results(results)
    hint = {properties.hint.inference_precision: openvino.Type.f32}
    request = openvino.Core().compile_model(origin, "CPU", hint).create_infer_request()
    ends = np.empty((len(runs), len(results)))
    for number, run in enumerate(runs):
        request.infer(dict(run))
        for index in range(len(results)):
            ends[number, index] = float(request.get_output_tensor(first + index).data)
    return [(ends[:, n].min(), ends[:, n + 1].max()) for n in range(0, len(results), 2)]
