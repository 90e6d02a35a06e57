"""Options of several commands, by their panel in `--help`."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from slide_deploy.errors import UsageError

# fmt: off
__all__ = [
    "Against", "Artifacts", "AsJson", "Atol", "Baseline", "Batch", "Calibration",
    "DeploymentTarget", "Dynamic", "DynamicSize", "ExpectedPrecision", "Factory", "Features",
    "Half", "ImageSize", "Images", "Inputs", "Key", "LoweringName", "MaxDrop", "ModelFile",
    "Opset", "OptionalModelFile", "Output", "PrecisionName", "Prefix", "Quiet", "Reports",
    "RequireFullNpu", "Rtol", "Seed", "Soc", "TargetOptions", "Targets", "Thorough", "Threads",
    "Trace", "Verbose", "Weights", "WeightsOption", "chosen_precision", "numerics",
    "output_option", "parse_size",
    "parse_target_options", "target_option",
]
# fmt: on

_model = partial(typer.Option, rich_help_panel="Model")
output_option = partial(typer.Option, rich_help_panel="Output")
numerics = partial(typer.Option, rich_help_panel="Numerics")
_verification = partial(typer.Option, rich_help_panel="Verification")
report_option = partial(typer.Option, rich_help_panel="Reports")


class Weights(StrEnum):
    EMA = "ema"
    MODEL = "model"


def complete_targets(incomplete: str) -> list[str]:
    """Shell completion of target names."""
    from slide_deploy.registry import target_names

    return [name for name in (*target_names(), "all") if name.startswith(incomplete)]


_MODEL = "Checkpoint (.pth, .pt, .safetensors) or Hugging Face folder."
ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help=_MODEL)]
OptionalModelFile = Annotated[
    Path | None, typer.Argument(metavar="MODEL", help=_MODEL, show_default=False)
]
Artifacts = Annotated[
    list[Path],
    typer.Argument(
        metavar="ARTIFACT...", help="Artifacts of any target, or an output folder of export."
    ),
]

# Model
Factory = Annotated[
    str | None,
    _model(
        "--model",
        metavar="PACKAGE.MODULE:NAME",
        help="Factory of a custom model, as package.module:function (runs your code).",
    ),
]
Inputs = Annotated[
    list[str] | None,
    _model(
        "--input",
        metavar="NAME:SHAPE[:DTYPE[:LOW..HIGH]]",
        help="Input of the custom model, such as image:1x3x224x224 or ids:1x8:int64:0..99; "
        "repeatable, in order.",
        show_default="image:1x3xHxW from --image-size",
    ),
]
WeightsOption = Annotated[
    Weights | None, _model(help="Weights to use if the file has both.", show_default="ema")
]
Prefix = Annotated[
    str | None,
    _model(
        metavar="NAME",
        help="Common prefix of the weights' names, such as 'backbone'.",
        show_default="found by the names",
    ),
]
Key = Annotated[
    str | None,
    _model(
        metavar="A.B",
        help="Where in the file the weights are, such as nets.student.",
        show_default="model, state_dict, ema, …",
    ),
]
ImageSize = Annotated[
    str | None,
    _model(
        "--image-size",
        "--imgsz",
        metavar="N|HxW",
        help="Height and width of the input in pixels.",
        show_default="from the file",
    ),
]
Features = Annotated[
    bool,
    _model(
        "--features",
        help="Output the feature maps of all stages (stage1, stage2, …) instead of class scores.",
    ),
]

# Output
target_option = partial(
    output_option,
    "--target",
    "-t",
    metavar="NAME",
    help="onnx, coreml, openvino, torchscript or all; repeatable.",
    autocompletion=complete_targets,
)
Targets = Annotated[list[str], target_option()]
Output = Annotated[
    Path | None,
    output_option("--output", "-o", help="Folder to write to.", show_default="NAME-deploy"),
]
Batch = Annotated[int, output_option("--batch", min=1, help="Fixed batch size.")]
Dynamic = Annotated[bool, output_option("--dynamic", help="Allow any batch size.")]
DynamicSize = Annotated[
    bool,
    output_option(
        "--dynamic-size",
        help="Allow any height and width, if the model supports it.",
    ),
]
Opset = Annotated[int | None, output_option(min=1, help="ONNX opset.", show_default="20")]
DeploymentTarget = Annotated[
    str | None,
    output_option(
        help="Oldest system that runs the Core ML package, such as iOS17 or macOS14.",
        show_default="iOS16",
    ),
]
Soc = Annotated[
    str | None,
    output_option(
        metavar="NAME,…",
        help="SoCs that qnn compiles for, such as SM8650,SM8750; same as --option soc=.",
        show_default="SM8650",
    ),
]
TargetOptions = Annotated[
    list[str] | None,
    output_option(
        "--option",
        metavar="NAME=VALUE",
        help="Option of one target, such as compression=palette; repeatable.",
    ),
]

# Numerics
PrecisionName = Annotated[
    str | None,
    numerics(
        "--precision",
        metavar="NAME",
        help="Type of weights and arithmetic: float32 (fp32), float16 (fp16, half), w8 (8-bit "
        "weights), w8a16 or w8a8 (int8: weights and activations). Inputs and outputs stay float32.",
        show_default="float32",
    ),
]
ExpectedPrecision = Annotated[
    str | None,
    numerics(
        "--precision",
        metavar="NAME",
        help="Precision that the artifacts must have: float32 (fp32), float16 (fp16, half), w8, "
        "w8a16 or w8a8 (int8).",
        show_default="that of the manifest, or float32",
    ),
]
Half = Annotated[bool, numerics("--half", help="Same as --precision float16.")]
Calibration = Annotated[
    str | None,
    numerics(
        "--calibration",
        metavar="FOLDER|FILE",
        help="Calibration set of 32 inputs or more: a folder of images, an .npy or .npz file, "
        "or the word synthetic.",
    ),
]
LoweringName = Annotated[
    str,
    numerics(
        "--lowering",
        metavar="NAME",
        help="Computation of Slide Attention: auto (fastest for the target), low-memory, "
        "or the name of a lowering.",
    ),
]

# Verification
Against = Annotated[
    Path | None,
    _verification(
        help="Checkpoint that the artifacts were exported from.",
        show_default="golden vectors beside the artifacts",
    ),
]
Golden = Annotated[
    Path | None,
    _verification(
        metavar="NAME.npz",
        help="Golden vectors to compare with, for a file that another tool has optimised; "
        "no manifest is compared.",
    ),
]
ManifestSha256 = Annotated[
    str | None,
    _verification(
        "--manifest-sha256",
        metavar="HASH",
        help="SHA-256 that manifest.json must have; get it from another source than the folder.",
    ),
]
Atol = Annotated[
    float | None,
    _verification(help="Absolute tolerance; replaces the limits derived from rounding noise."),
]
Rtol = Annotated[
    float | None,
    _verification(help="Relative tolerance; replaces the limits derived from rounding noise."),
]
MaxDrop = Annotated[
    float | None,
    _verification(
        "--max-drop",
        metavar="PERCENT",
        min=0,
        help="Largest percentage of the calibration set on which the top-1 class of a quantized "
        "artifact may differ from the float64 model.",
        show_default="10",
    ),
]
RequireFullNpu = Annotated[
    bool,
    _verification(
        "--require-full-npu", help="Fail where an artifact for an NPU leaves operators on the CPU."
    ),
]
Thorough = Annotated[
    bool,
    _verification(
        "--thorough", help="Run ONNX's reference evaluator also on files of 8 MB or more."
    ),
]
Trace = Annotated[
    bool,
    _verification("--trace", help="Show the error of each block, also if the artifact passes."),
]
Images = Annotated[
    Path | None,
    _verification(
        help="Folder of images to verify with: .npy (CHW, normalised as in training), .png or .jpg."
    ),
]
Seed = Annotated[
    int | None,
    _verification(
        min=0,
        help="Seed of the random probes; a report gives the seed that repeats it.",
        show_default="a new one",
    ),
]
Baseline = Annotated[
    Path | None,
    _verification(help="Earlier report.json. An artifact that is worse than in it fails."),
]

# Reports
Reports = Annotated[
    list[Path] | None,
    report_option(
        "--report",
        metavar="FILE|-",
        help="Also write a report: .html, .xml (JUnit), .md or .json; repeatable. "
        "A dash means --json.",
    ),
]
AsJson = Annotated[
    bool,
    report_option("--json", help="Print only the report, as JSON, on standard output."),
]
Quiet = Annotated[
    bool, report_option("--quiet", "-q", help="Print only errors; the exit code is the verdict.")
]
Verbose = Annotated[
    bool, report_option("--verbose", "-v", help="Print every comparison and every problem.")
]

# bench and tune
Threads = Annotated[int, typer.Option("--threads", min=1, help="Threads of each runtime.")]


def chosen_precision(name: str | None, *, half: bool) -> str:
    """The scheme selected by --precision and --half; UnknownName or UsageError if none."""
    from slide_deploy.quantization.catalog import scheme_named

    scheme = scheme_named(name or ("float16" if half else "float32"))
    if half and scheme.name != "float16":
        raise UsageError(f"--half and --precision {name} contradict each other", "use one of them")
    return scheme.name


def parse_target_options(given: list[str] | None, **named: object) -> dict[str, object]:
    """Parse NAME=VALUE pairs, and add the `named` options that are not None; UsageError for
    anything else."""
    pairs = [text.partition("=") for text in given or ()]
    for name, sign, value in pairs:
        if not (name and sign and value):
            raise UsageError(
                f"--option expects NAME=VALUE; got {name + sign + value!r}",
                "see the documentation of the target",
            )
        if named.get(name) is not None:
            raise UsageError(f"--{name} and --option {name}= are the same option", "omit one")
    own = {name: value for name, value in named.items() if value is not None}
    return {name: value for name, _, value in pairs} | own


def parse_size(text: str) -> tuple[int, int]:
    """Parse height and width from N or HxW; UsageError for anything else."""
    parts = text.lower().split("x")
    sizes = [int(part) for part in parts if part.isascii() and part.isdigit() and len(part) < 10]
    if len(sizes) != len(parts) or len(sizes) not in (1, 2) or min(sizes) < 1:
        raise UsageError(
            f"--image-size expects N or HxW, such as 224 or 224x320; got {text[:20]!r}.",
            "give the size in pixels that the model was trained with",
        )
    return sizes[0], sizes[-1]
