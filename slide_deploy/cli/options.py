"""Options that commands share, by the panel of `--help` that they stand in."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from slide_deploy.errors import UsageError

__all__ = [
    "Against",
    "Artifacts",
    "AsJson",
    "Atol",
    "Baseline",
    "Batch",
    "DeploymentTarget",
    "Dynamic",
    "DynamicSize",
    "Factory",
    "Features",
    "Half",
    "ImageSize",
    "Images",
    "Inputs",
    "LoweringName",
    "ModelFile",
    "Opset",
    "Output",
    "PrecisionName",
    "Quiet",
    "Reports",
    "Rtol",
    "Targets",
    "Thorough",
    "Threads",
    "Trace",
    "Verbose",
    "Weights",
    "WeightsOption",
    "chosen_precision",
    "parse_size",
]

MODEL, OUTPUT, NUMERICS = "Model", "Output", "Numerics"
VERIFICATION, REPORTS = "Verification", "Reports"


class Weights(StrEnum):
    EMA = "ema"
    MODEL = "model"


def complete_targets(incomplete: str) -> list[str]:
    """Names of targets for the shell."""
    from slide_deploy.registry import target_names

    return [name for name in (*target_names(), "all") if name.startswith(incomplete)]


ModelFile = Annotated[
    Path,
    typer.Argument(metavar="MODEL", help="Checkpoint (.pth, .pt) or fused .safetensors file."),
]
Artifacts = Annotated[
    list[Path],
    typer.Argument(
        metavar="ARTIFACT...", help="Artifacts of any target, or a folder that export wrote."
    ),
]

# Model
Factory = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="PACKAGE.MODULE:NAME",
        help="Factory of a custom model, as package.module:function (runs your code).",
        rich_help_panel=MODEL,
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="NAME:SHAPE[:DTYPE]",
        help="Input of the custom model, such as image:1x3x224x224; repeatable, in order.",
        show_default="image:1x3xHxW from --image-size",
        rich_help_panel=MODEL,
    ),
]
WeightsOption = Annotated[
    Weights | None,
    typer.Option(
        help="Weights to take where the file holds both.",
        show_default="ema",
        rich_help_panel=MODEL,
    ),
]
ImageSize = Annotated[
    str | None,
    typer.Option(
        "--image-size",
        "--imgsz",
        metavar="N|HxW",
        help="Height and width of the input in pixels.",
        show_default="as the file says",
        rich_help_panel=MODEL,
    ),
]
Features = Annotated[
    bool,
    typer.Option(
        "--features",
        help="Output the feature maps of all stages (stage1, stage2, …) instead of class scores.",
        rich_help_panel=MODEL,
    ),
]

# Output
Targets = Annotated[
    list[str],
    typer.Option(
        "--target",
        "-t",
        metavar="NAME",
        help="onnx, coreml, openvino, torchscript or all; repeatable.",
        autocompletion=complete_targets,
        rich_help_panel=OUTPUT,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Folder to write to.",
        show_default="NAME-deploy",
        rich_help_panel=OUTPUT,
    ),
]
Batch = Annotated[
    int, typer.Option("--batch", min=1, help="Fixed batch size.", rich_help_panel=OUTPUT)
]
Dynamic = Annotated[
    bool, typer.Option("--dynamic", help="Leave the batch size free.", rich_help_panel=OUTPUT)
]
DynamicSize = Annotated[
    bool,
    typer.Option(
        "--dynamic-size",
        help="Leave height and width free, for models without weights of a fixed size.",
        rich_help_panel=OUTPUT,
    ),
]
Opset = Annotated[
    int | None,
    typer.Option(min=1, help="ONNX opset.", show_default="20", rich_help_panel=OUTPUT),
]
DeploymentTarget = Annotated[
    str | None,
    typer.Option(
        help="Oldest system that runs the Core ML package, such as iOS17 or macOS14.",
        show_default="iOS16",
        rich_help_panel=OUTPUT,
    ),
]

# Numerics
PrecisionName = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="NAME",
        help="Type of weights and arithmetic: float32 (fp32) or float16 (fp16, half). "
        "Inputs and outputs stay float32.",
        show_default="float32",
        rich_help_panel=NUMERICS,
    ),
]
Half = Annotated[
    bool,
    typer.Option("--half", help="Same as --precision float16.", rich_help_panel=NUMERICS),
]
LoweringName = Annotated[
    str,
    typer.Option(
        "--lowering",
        metavar="NAME",
        help="How Slide Attention is computed: auto (fastest for the target), low-memory, "
        "or the name of a lowering.",
        rich_help_panel=NUMERICS,
    ),
]

# Verification
Against = Annotated[
    Path | None,
    typer.Option(
        help="Checkpoint that the artifacts came from.",
        show_default="golden vectors beside the artifacts",
        rich_help_panel=VERIFICATION,
    ),
]
Atol = Annotated[
    float | None,
    typer.Option(
        help="Absolute tolerance instead of the calibrated gates.", rich_help_panel=VERIFICATION
    ),
]
Rtol = Annotated[
    float | None,
    typer.Option(
        help="Relative tolerance instead of the calibrated gates.", rich_help_panel=VERIFICATION
    ),
]
Thorough = Annotated[
    bool,
    typer.Option(
        "--thorough",
        help="Run a second implementation on large artifacts too.",
        rich_help_panel=VERIFICATION,
    ),
]
Trace = Annotated[
    bool,
    typer.Option(
        "--trace",
        help="Show the error of each block, for artifacts that pass too.",
        rich_help_panel=VERIFICATION,
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(
        help="Folder of images to verify with: .npy (CHW, normalised as in training), "
        ".png or .jpg.",
        rich_help_panel=VERIFICATION,
    ),
]
Baseline = Annotated[
    Path | None,
    typer.Option(
        help="An earlier report.json; whatever got worse since then fails.",
        rich_help_panel=VERIFICATION,
    ),
]

# Reports
Reports = Annotated[
    list[Path] | None,
    typer.Option(
        "--report",
        metavar="FILE|-",
        help="Also write a report: .html, .xml (JUnit), .md or .json; repeatable. "
        "A dash means --json.",
        rich_help_panel=REPORTS,
    ),
]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print the report as JSON on standard output, and nothing else there.",
        rich_help_panel=REPORTS,
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="Print errors only; the exit code is the verdict.",
        rich_help_panel=REPORTS,
    ),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="Print every comparison and every problem.",
        rich_help_panel=REPORTS,
    ),
]

# bench and tune
Threads = Annotated[int, typer.Option("--threads", min=1, help="Threads of each runtime.")]


def chosen_precision(name: str | None, *, half: bool) -> str:
    """The scheme that --precision and --half ask for; UnknownName or UsageError if none."""
    from slide_deploy.quantization.catalog import scheme_named

    scheme = scheme_named(name or ("float16" if half else "float32"))
    if half and scheme.name != "float16":
        raise UsageError(f"--half and --precision {name} contradict each other", "give one of them")
    return scheme.name


def parse_size(text: str) -> tuple[int, int]:
    """Height and width from N or HxW; UsageError for anything else."""
    parts = text.lower().split("x")
    sizes = [int(part) for part in parts if part.isascii() and part.isdigit() and len(part) < 10]
    if len(sizes) != len(parts) or len(sizes) not in (1, 2) or min(sizes) < 1:
        raise UsageError(
            f"--image-size expects N or HxW, such as 224 or 224x320; got {text[:20]!r}.",
            "give the size in pixels that the model was trained with",
        )
    return sizes[0], sizes[-1]
