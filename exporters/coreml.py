"""Core ML ML program, through torch.export (tracing breaks with numpy ≥ 2.4)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from slide_deploy.errors import ConversionError, UsageError
from slide_deploy.exporters._coreml.blocks import blocks_of, record_blocks
from slide_deploy.exporters._coreml.classifier import classifier_config, finish_classifier
from slide_deploy.exporters._coreml.description import OPTIONS
from slide_deploy.exporters._coreml.examples import EXAMPLES
from slide_deploy.exporters._coreml.package import save_package
from slide_deploy.exporters._quantize.coreml import COMPRESSIONS, parse_compression, quantize
from slide_deploy.protocols import Exporter, TargetOption
from slide_deploy.types import Options, Precision

if TYPE_CHECKING:
    from slide_deploy.capture import Capture

__all__ = ["EXPORTER"]

# The first with float16 input and output types per operator, and the minimum in current Xcode.
DEFAULT_TARGET = "iOS16"

# Systems that run ML programs, with the versions in coremltools 9. After these came 26 of each.
SYSTEMS = {"iOS": (15, 18), "macOS": (12, 15), "watchOS": (8, 11), "tvOS": (15, 18)}
DEPLOYMENT_TARGETS = tuple(
    f"{system}{version}"
    for system, (first, last) in SYSTEMS.items()
    for version in (*range(first, last + 1), 26)
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
    image input, in RGB, which is normalised in float32; probabilities are computed in float32, and
    become a dictionary beside the name of the best class.
    """
    pictured = capture.inputs[0].is_picture
    _refuse(capture)
    if pictured:
        capture = capture.of_planes()
    scores = capture.outputs[1:] if capture.classes else ()
    if scores:  # coremltools 9.0 fails at a classifier with further outputs: they are added below
        capture = capture.of_probabilities()
    program = capture.program.run_decompositions({})
    blocks = blocks_of(program, capture.blocks)
    package = _converted(program, capture, options, pictured=pictured)

    def finish(spec: Any) -> None:
        if capture.classes:
            finish_classifier(spec, scores)
        record_blocks(spec, blocks)

    save_package(package, path, capture.metadata, options.target_options, finish)


def _refuse(capture: Capture) -> None:
    """ConversionError for inputs that Core ML cannot take."""
    first = capture.inputs[0]
    if first.is_picture and first.shape[0] != 1:
        raise ConversionError(
            "an image input of Core ML is one picture", "omit --batch and --dynamic"
        )
    if capture.classes and first.shape[0] != 1:
        raise ConversionError(
            "a Core ML classifier takes one input at a time", "omit --batch and --dynamic"
        )
    if odd := [s for s in capture.inputs if not (s.is_picture or s.dtype in DTYPES)]:
        raise ConversionError(
            f"input {odd[0].name} is {odd[0].dtype}, which Core ML does not support for inputs",
            f"declare it as int32, e.g. --input {odd[0].name}:SHAPE:int32",
        )


def _converted(program: Any, capture: Capture, options: Options, *, pictured: bool) -> Any:
    """The package that coremltools makes; `pictured` turns the input into an image."""
    import coremltools as ct
    import numpy as np

    half = options.precision == Precision.FLOAT16
    classes, outputs = capture.classes, capture.outputs
    batch = ct.RangeDim(lower_bound=1, upper_bound=64, default=1)
    free = {
        name: ct.RangeDim(2 * steps.step, LARGEST_SIZE, default=steps.example)
        for name, steps in capture.sizes.items()
    }
    passes = ct.PassPipeline.DEFAULT
    # It fails at a product of one output to which a scalar is added (coremltools 9.0), and merges
    # nothing in what torch.export gives: products have their bias there.
    passes.remove_passes({"common::fuse_linear_bias"})
    return ct.convert(
        program,
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
        outputs=[ct.TensorType(name=spec.name, dtype=np.float32) for spec in outputs],
        minimum_deployment_target=getattr(ct.target, options.deployment_target or DEFAULT_TARGET),
        classifier_config=classifier_config(classes, outputs[0].name) if classes else None,
        compute_precision=_half(pictured, bool(classes)) if half else ct.precision.FLOAT32,
        pass_pipeline=passes,
        skip_model_load=True,
    )


def _half(pictured: bool, classifies: bool) -> object:
    """float16 arithmetic; a picture is normalised in float32, whose offsets float16 would round,
    and so are probabilities computed, of which float16 would lose the small ones."""
    import coremltools as ct

    if not pictured and not classifies:
        return ct.precision.FLOAT16

    def chosen(op: Any) -> bool:
        if classifies and op.op_type == "softmax" and op.outputs[0] in op.enclosing_block.outputs:
            return False
        if not pictured:
            return True
        first = op.inputs.get("x")
        if op.op_type == "mul" and first is not None and first.op is not None:
            op, first = first.op, first.op.inputs.get("x")
        return not (op.op_type == "sub" and first is not None and first.op is None)

    return ct.transform.FP16ComputePrecision(op_selector=chosen)


EXPORTER = Exporter(
    target="coreml",
    title="Core ML",
    file_name=lambda stem: f"{stem}.mlpackage",
    write=write,
    packages=("torch", "coremltools"),
    extra="coreml",
    aliases=("ios", "mlpackage"),
    picture="an image (ImageType, in RGB), such as a CVPixelBuffer",
    probabilities="a dictionary from the name of each class to its probability, beside classLabel, "
    "the name of the best class",
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
        *OPTIONS,
    ),
)
