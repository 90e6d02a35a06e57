"""Core ML ML program, through torch.export (tracing breaks with numpy ≥ 2.4)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from slide_deploy.errors import ConversionError, UsageError
from slide_deploy.exporters._coreml_package import save_package
from slide_deploy.exporters._quantize.coreml import COMPRESSIONS, parse_compression, quantize
from slide_deploy.protocols import Example, Exporter, TargetOption
from slide_deploy.types import Options, Precision

if TYPE_CHECKING:
    from slide_deploy.capture import Capture

__all__ = ["EXPORTER"]

# The first with float16 input and output types per operator, and the minimum in current Xcode.
DEFAULT_TARGET = "iOS16"

# Systems that run ML programs, with the first and last version in coremltools 9.
SYSTEMS = {"iOS": (15, 18), "macOS": (12, 15), "watchOS": (8, 11), "tvOS": (15, 18)}
DEPLOYMENT_TARGETS = tuple(
    f"{system}{version}"
    for system, (first, last) in SYSTEMS.items()
    for version in range(first, last + 1)
)

# Of a free height or width in pixels, which must be bounded in Core ML.
LARGEST_SIZE = 4096

# Types of inputs; Core ML also has float16, which our inputs do not use.
DTYPES = ("float32", "int32")


def parse_deployment_target(value: object) -> str:
    """A name of `coremltools.target` with ML programs; UsageError for any other."""
    text = str(value)
    for name in DEPLOYMENT_TARGETS:
        if text.lower() == name.lower():
            return name
    for system, (first, _) in SYSTEMS.items():
        version = text[len(system) :].partition("_")[0].partition(".")[0]
        if text.lower().startswith(system.lower()) and version.isdecimal() and int(version) < first:
            raise UsageError(
                f"Core ML has no ML programs before {system}{first}; got {text[:20]!r}",
                f"use one of {', '.join(DEPLOYMENT_TARGETS)}",
            )
    raise UsageError(
        f"unknown Core ML deployment target {text[:20]!r}",
        f"known: {', '.join(DEPLOYMENT_TARGETS)}",
    )


def write(capture: Capture, path: Path, options: Options) -> None:
    """Write the package `path`.

    `options.deployment_target` is a name of `coremltools.target`, such as iOS17 or macOS14.
    float16 rounds weights and arithmetic; inputs and outputs stay float32. A picture becomes an
    image input, in RGB, which is normalised in float32.
    """
    import coremltools as ct
    import numpy as np

    pictured = capture.inputs[0].is_picture
    if pictured:
        if capture.inputs[0].shape[0] != 1:
            raise ConversionError(
                "an image input of Core ML is one picture", "omit --batch and --dynamic"
            )
        capture = capture.of_planes()
    if odd := [spec for spec in capture.inputs if spec.dtype not in DTYPES]:
        raise ConversionError(
            f"input {odd[0].name} is {odd[0].dtype}, which Core ML does not support for inputs",
            f"declare it as int32, e.g. --input {odd[0].name}:SHAPE:int32",
        )
    half = options.precision == Precision.FLOAT16
    batch = ct.RangeDim(lower_bound=1, upper_bound=64, default=1)
    free = {
        name: ct.RangeDim(2 * steps.step, LARGEST_SIZE, default=steps.example)
        for name, steps in capture.sizes.items()
    }
    passes = ct.PassPipeline.DEFAULT
    # It fails at a product of one output to which a scalar is added (coremltools 9.0), and merges
    # nothing in what torch.export gives: products have their bias there.
    passes.remove_passes({"common::fuse_linear_bias"})
    package = ct.convert(
        capture.program.run_decompositions({}),
        source="pytorch",
        convert_to="mlprogram",
        inputs=[
            ct.ImageType(name=spec.name, shape=spec.shape, color_layout=ct.colorlayout.RGB)
            if pictured
            else ct.TensorType(
                name=spec.name,
                shape=[
                    free.get(size, batch) if isinstance(size, str) else size for size in spec.shape
                ],
                dtype=np.dtype(spec.dtype).type,
            )
            for spec in capture.inputs
        ],
        outputs=[ct.TensorType(name=spec.name, dtype=np.float32) for spec in capture.outputs],
        minimum_deployment_target=getattr(ct.target, options.deployment_target or DEFAULT_TARGET),
        compute_precision=_half(pictured) if half else ct.precision.FLOAT32,
        pass_pipeline=passes,
        skip_model_load=True,
    )
    for spec in capture.inputs:
        package.input_description[spec.name] = capture.metadata.get("input", spec.name)
    save_package(package, path, capture.metadata)


def _half(pictured: bool) -> object:
    """float16 arithmetic; a picture is normalised in float32, whose offsets float16 would round."""
    import coremltools as ct

    if not pictured:
        return ct.precision.FLOAT16

    def chosen(op: Any) -> bool:
        first = op.inputs.get("x")
        if op.op_type == "mul" and first is not None and first.op is not None:
            op, first = first.op, first.op.inputs.get("x")
        return not (op.op_type == "sub" and first is not None and first.op is None)

    return ct.transform.FP16ComputePrecision(op_selector=chosen)


# Vision scales the shorter side of a picture to the model's, and crops it at the centre.
SWIFT_PICTURE = """\
import CoreML
import Vision
let compiled = try await MLModel.compileModel(at: URL(fileURLWithPath: $path))
let model = try VNCoreMLModel(for: MLModel(contentsOf: compiled))
let request = VNCoreMLRequest(model: model)
request.imageCropAndScaleOption = .centerCrop
try VNImageRequestHandler(cgImage: picture).perform([request])
let found = request.results as? [VNCoreMLFeatureValueObservation]
let result = found?.first { $$0.featureName == $output }?.featureValue.multiArrayValue"""

SWIFT_TENSOR = """\
import CoreML
let compiled = try await MLModel.compileModel(at: URL(fileURLWithPath: $path))
let model = try MLModel(contentsOf: compiled)
let values = try MLMultiArray(shape: $shape, dataType: .float32)  // to be filled
let features = try MLDictionaryFeatureProvider(dictionary: [$input: values])
let found = try await model.prediction(from: features)
let result = found.featureValue(for: $output)?.multiArrayValue"""

EXAMPLES = (
    Example("Swift", SWIFT_PICTURE, takes="picture"),
    Example("Swift", SWIFT_TENSOR, takes="tensor"),
)


EXPORTER = Exporter(
    target="coreml",
    title="Core ML",
    file_name=lambda stem: f"{stem}.mlpackage",
    write=write,
    packages=("torch", "coremltools"),
    extra="coreml",
    aliases=("ios", "mlpackage"),
    picture="an image (ImageType, in RGB), such as a CVPixelBuffer",
    examples=EXAMPLES,
    precisions=(Precision.FLOAT32, Precision.FLOAT16, Precision.W8, Precision.W8A8),
    lacks={Precision.W8A16: "its operations quantize activations to 8 bits only"},
    quantize=quantize,
    quantized_from=Precision.FLOAT16,
    options=(
        TargetOption(
            name="deployment_target",
            help="Oldest system that the package runs on, such as iOS17 or macOS14.",
            parse=parse_deployment_target,
            default=DEFAULT_TARGET,
        ),
        TargetOption(
            name="compression",
            help="Of w8's weights: integers with a scale for each channel, or a palette of 256 "
            "values for each tensor.",
            parse=parse_compression,
            default=COMPRESSIONS[0],
        ),
    ),
)
