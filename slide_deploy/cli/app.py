"""The command line: parse → pipeline → render → exit code; nothing else."""

from __future__ import annotations

import shlex
import sys
import traceback
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from slide_deploy import __version__
from slide_deploy.errors import SlideDeployError, UsageError
from slide_deploy.types import Options, Precision, Verdict

if TYPE_CHECKING:
    import numpy as np

    from slide_deploy.loading.loader import Model
    from slide_deploy.verification.judge import VerificationPolicy
    from slide_deploy.verification.record import Report

__all__ = ["app", "main"]

EXIT_CODES = (
    "Exit codes: 0 all passed, 1 a verdict failed, 2 bad input or usage, 3 a library is missing, "
    "70 an unexpected error, 130 interrupted."
)
_UNEXPECTED, _INTERRUPTED = 70, 130
_EXIT = {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.NOT_RUN: 3}

app = typer.Typer(
    help="Export Slide-Transformers and prove each artifact against PyTorch.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Weights(StrEnum):
    EMA = "ema"
    MODEL = "model"


ModelFile = Annotated[Path, typer.Argument(help="Checkpoint (.pth, .pt) or fused .safetensors.")]
WeightsOption = Annotated[
    Weights | None,
    typer.Option(help="Which weights, where a file has both. [default: ema]", show_default=False),
]
ImageSize = Annotated[
    str | None,
    typer.Option(
        "--image-size",
        "--imgsz",
        metavar="N|HxW",
        help="Input height and width in pixels, where the file does not tell.",
    ),
]
Features = Annotated[
    bool, typer.Option("--features", help="The maps of all stages as outputs: stage1, stage2, …")
]
Factory = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="PACKAGE.MODULE:NAME",
        help="What makes the model, where it is one of your own; this runs your code.",
        show_default=False,
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="NAME:SHAPE[:DTYPE]",
        help="An input of --model, e.g. image:1x3x224x224; repeatable, in order. "
        "[default: image:1x3xHxW from --image-size]",
        show_default=False,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="Output folder. [default: NAME-deploy]", show_default=False
    ),
]

Atol = Annotated[
    float | None,
    typer.Option(help="Absolute tolerance in place of the calibrated gate.", show_default=False),
]
Rtol = Annotated[
    float | None,
    typer.Option(help="Relative tolerance in place of the calibrated gate.", show_default=False),
]
Thorough = Annotated[
    bool, typer.Option("--thorough", help="A second opinion on artifacts of any size.")
]
Trace = Annotated[
    bool, typer.Option("--trace", help="Show the error block by block also where all passed.")
]
Images = Annotated[
    Path | None,
    typer.Option(
        help="Folder of images (.npy, CHW, normalised as in training; or .png/.jpg) to probe with.",
        show_default=False,
    ),
]
Reports = Annotated[
    list[Path] | None,
    typer.Option(
        "--report",
        help="Also write a report: .html, .xml (JUnit), .md or .json; repeatable.",
        show_default=False,
    ),
]
Baseline = Annotated[
    Path | None,
    typer.Option(
        help="An earlier report.json; what got worse since fails.",
        show_default=False,
    ),
]


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"slide-deploy {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options of no command; both are dealt with before this runs."""


@app.command(epilog=EXIT_CODES)
def export(
    model: ModelFile,
    target: Annotated[
        list[str],
        typer.Option(
            "--target", "-t", help="onnx, coreml, openvino, torchscript or all; repeatable."
        ),
    ],
    output: Output = None,
    factory: Factory = None,
    inputs: Inputs = None,
    weights: WeightsOption = None,
    image_size: ImageSize = None,
    features: Features = False,
    precision: Annotated[
        Precision, typer.Option(help="Of weights and arithmetic; inputs stay float32.")
    ] = Precision.FLOAT32,
    half: Annotated[bool, typer.Option("--half", help="Same as --precision float16.")] = False,
    batch: Annotated[int, typer.Option(min=1, help="Fixed batch size.")] = 1,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Leave the batch size free.")] = False,
    dynamic_size: Annotated[
        bool,
        typer.Option(
            "--dynamic-size", help="Leave height and width free, where no part fixes them."
        ),
    ] = False,
    lowering: Annotated[
        str, typer.Option(help="Form of the attention: auto, low-memory, or a form's name.")
    ] = "auto",
    opset: Annotated[
        int | None, typer.Option(min=1, help="ONNX opset. [default: 20]", show_default=False)
    ] = None,
    deployment_target: Annotated[
        str | None,
        typer.Option(help="Core ML, e.g. iOS17 or macOS14. [default: iOS16]", show_default=False),
    ] = None,
    atol: Atol = None,
    rtol: Rtol = None,
    thorough: Thorough = False,
    trace: Trace = False,
    images: Images = None,
    report: Reports = None,
    baseline: Baseline = None,
) -> None:
    """Export a checkpoint and prove each artifact, as written to disk, against PyTorch."""
    from slide_deploy import registry

    # Before the work: what cannot be written or read is said now, and `--output` may be the
    # folder that the baseline lies in.
    before = _before(report, baseline)
    targets = registry.resolve_targets(target)
    missing = {
        name: registry.missing_packages(registry.exporter(name).packages) for name in targets
    }
    if len(targets) == 1 and missing[targets[0]]:
        exporter = registry.exporter(targets[0])
        registry.require(f"export to {exporter.title}", exporter.packages, exporter.extra)
    options = Options(
        precision=Precision.FLOAT16 if half else precision,
        batch=batch,
        dynamic=dynamic,
        dynamic_size=dynamic_size,
        lowering=lowering,
        opset=opset,
        deployment_target=deployment_target,
    )
    from slide_deploy.report.progress import steps

    with steps() as step:
        step(f"reading {model.name}")
        loaded = _load(
            model, weights, image_size, features=features, factory=factory, inputs=inputs
        )
        kind = "features-deploy" if features else "deploy"
        folder = output or Path(f"{loaded.name}-{kind}")
        from slide_deploy.pipeline import export_and_verify

        found = export_and_verify(
            loaded,
            targets,
            folder,
            options,
            policy=_judging(atol, rtol, thorough=thorough, trace=trace),
            images=_images(images, loaded),
            baseline=before,
            progress=step,
            command=_command(),
        )
    where = f"Artifacts, manifest.json, golden vectors, report.json and .html are in {folder}/"
    _finish(found, loaded.notes, where, report, trace=trace)


@app.command(epilog=EXIT_CODES)
def verify(
    artifact: Annotated[
        list[Path], typer.Argument(help="Artifacts of any target, or a folder that export wrote.")
    ],
    against: Annotated[
        Path | None,
        typer.Option(
            help="The checkpoint they came from. Without it, the golden vectors beside them.",
            show_default=False,
        ),
    ] = None,
    factory: Factory = None,
    inputs: Inputs = None,
    weights: WeightsOption = None,
    image_size: ImageSize = None,
    features: Features = False,
    atol: Atol = None,
    rtol: Rtol = None,
    thorough: Thorough = False,
    trace: Trace = False,
    images: Images = None,
    report: Reports = None,
    baseline: Baseline = None,
) -> None:
    """Prove artifacts on disk against their checkpoint, or against recorded golden vectors."""
    from slide_deploy.report.progress import steps

    before = _before(report, baseline)
    policy = _judging(atol, rtol, thorough=thorough, trace=trace)
    notes: tuple[str, ...] = ()
    with steps() as step:
        if against is None:
            if weights or image_size or features or images or trace or factory or inputs:
                raise UsageError(
                    "--model, --input, --weights, --image-size, --features, --images and --trace "
                    "need the checkpoint",
                    "add --against model.pth",
                )
            from slide_deploy.verification.recorded import verify_recorded

            found = verify_recorded(artifact, policy, step, _command())
        else:
            step(f"reading {against.name}")
            loaded = _load(
                against, weights, image_size, features=features, factory=factory, inputs=inputs
            )
            notes = loaded.notes
            from slide_deploy import pipeline

            found = pipeline.verify(
                artifact,
                loaded,
                policy=policy,
                images=_images(images, loaded),
                progress=step,
                command=_command(),
            )
    if before is not None:
        from slide_deploy.verification.baseline import regressions

        found = regressions(found, before)
    _finish(found, notes, "", report, trace=trace)


@app.command(epilog=EXIT_CODES)
def inspect(
    model: ModelFile,
    factory: Factory = None,
    inputs: Inputs = None,
    weights: WeightsOption = None,
    image_size: ImageSize = None,
) -> None:
    """Show what a checkpoint holds: architecture, cost, and what its shifts have learned."""
    loaded = _load(model, weights, image_size, factory=factory, inputs=inputs)
    from slide_deploy.loading.inspection import inspect as look
    from slide_deploy.report.terminal import inspection_table, make_console

    make_console().print(inspection_table(look(loaded)))


@app.command(epilog=EXIT_CODES)
def fuse(
    model: ModelFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="A .safetensors file to write.")],
    weights: WeightsOption = None,
    image_size: ImageSize = None,
) -> None:
    """Merge both shift paths and write the fused weights; every command takes that file too."""
    if output.suffix != ".safetensors":
        raise UsageError(f"{output} does not end in .safetensors", "name it so")
    loaded = _load(model, weights, image_size)
    from slide_deploy.fusion.branches import shift_reports
    from slide_deploy.loading.loader import save_fused
    from slide_deploy.report.text import size_text

    save_fused(loaded, output)
    count = len(shift_reports(loaded.module))
    typer.echo(
        f"fused {count} Slide Attention modules into {output} "
        f"({size_text(output.stat().st_size)}), each equal to its training form within 1e-12"
    )


@app.command(epilog=EXIT_CODES)
def targets() -> None:
    """Show what this machine can export and run, and what to install for the rest."""
    from slide_deploy.report.targets import targets_table
    from slide_deploy.report.terminal import make_console

    make_console().print(targets_table())


@app.command(epilog=EXIT_CODES)
def bench(
    artifact: Annotated[list[Path], typer.Argument(help="Artifacts to time, in turn.")],
    threads: Annotated[int, typer.Option(min=1, help="Threads of each runtime.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds over all artifacts.")] = 10,
    calls: Annotated[int, typer.Option(min=1, help="Calls per artifact and round.")] = 5,
    warmup: Annotated[int, typer.Option(min=0, help="Calls before timing.")] = 5,
    chart: Annotated[
        Path | None, typer.Option(help="Draw bars to a .png or .svg.", show_default=False)
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures.", show_default=False)
    ] = None,
) -> None:
    """Time artifacts through their own runtimes, interleaved so that ratios hold."""
    from slide_deploy.bench.latency import bench as run
    from slide_deploy.report.progress import steps
    from slide_deploy.report.terminal import make_console
    from slide_deploy.report.timings import save_chart, timings_table
    from slide_deploy.utils.records import write_json

    with steps() as step:
        found = run(
            artifact, threads=threads, rounds=rounds, calls=calls, warmup=warmup, progress=step
        )
    make_console().print(timings_table(found))
    if chart:
        save_chart(found, chart)
    if json_file:
        write_json(found, json_file)


@app.command(epilog=EXIT_CODES)
def tune(
    model: ModelFile,
    target: Annotated[
        list[str], typer.Option("--target", "-t", help="Targets to tune for; repeatable.")
    ],
    weights: WeightsOption = None,
    image_size: ImageSize = None,
    batch: Annotated[int, typer.Option(min=1, help="Batch size to time.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the runtime.")] = 2,
) -> None:
    """Time every form of the attention on this machine, and remember the fastest for export."""
    from slide_deploy import registry
    from slide_deploy.report.progress import steps
    from slide_deploy.report.terminal import make_console

    targets = registry.resolve_targets(target)
    with steps() as step:
        loaded = _load(model, weights, image_size)
        from slide_deploy.bench.tuning import tune as run
        from slide_deploy.report.tunings import tuning_table

        options = Options(batch=batch)
        found = [run(loaded, name, options, threads=threads, progress=step) for name in targets]
    console = make_console()
    for tuning in found:
        console.print(tuning_table(tuning))


def main() -> None:
    """Entry point: errors become one line and a stable exit code."""
    # --debug belongs to no command: people add it to the end of the line that failed.
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments)
    except SlideDeployError as error:
        _stop(error.message, error.hint, error.exit_code, debug=debug)
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        hint = "report it, with the traceback"
        hint = hint if debug else f"run again with --debug and {hint}"
        _stop(f"unexpected failure: {what}", hint, _UNEXPECTED, debug=debug)


def _stop(message: str, hint: str, code: int, *, debug: bool) -> NoReturn:
    """End with the error that is being handled; its traceback only with --debug."""
    if debug:
        traceback.print_exc()
    print(f"error: {_one_line(message)}", file=sys.stderr)
    if hint:
        print(f"  → {_one_line(hint)}", file=sys.stderr)
    raise SystemExit(code) from None


def _one_line(text: str) -> str:
    """File names and keys come from others: nothing in them may start a line or move a cursor."""
    return "".join(sign if sign.isprintable() else "�" for sign in text)


def _load(
    path: Path,
    weights: Weights | None,
    image_size: str | None,
    *,
    features: bool = False,
    factory: str | None = None,
    inputs: list[str] | None = None,
) -> Model:
    if inputs and factory is None:
        raise UsageError(
            "--input is for models of your own", "add --model package.module:factory, or leave it"
        )
    size = _parse_size(image_size) if image_size is not None else None
    from slide_deploy import registry
    from slide_deploy.utils.files import check_file

    check_file(path)
    registry.require("reading a model", ("torch",), "torch")
    if factory is not None:
        from slide_deploy.loading.custom import load_foreign, parse_input

        specs = tuple(map(parse_input, inputs or ()))
        return load_foreign(path, factory, specs, weights=weights, image_size=size)
    from slide_deploy.loading.loader import load

    return load(path, weights=weights, image_size=size, features=features)


def _parse_size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    sizes = [int(part) for part in parts if part.isascii() and part.isdigit() and len(part) < 10]
    if len(sizes) != len(parts) or len(sizes) not in (1, 2) or min(sizes) < 1:
        raise UsageError(f"--image-size {text[:20]!r} is not a size", "give e.g. 224 or 224x320")
    return sizes[0], sizes[-1]


def _judging(
    atol: float | None, rtol: float | None, *, thorough: bool, trace: bool
) -> VerificationPolicy:
    from slide_deploy.parity.comparison import Tolerance
    from slide_deploy.verification.judge import VerificationPolicy

    if min(atol or 0.0, rtol or 0.0) < 0:
        raise UsageError("a tolerance cannot be negative", "give e.g. --atol 1e-4")
    own = None if atol is None and rtol is None else Tolerance(atol or 0.0, rtol or 0.0)
    return VerificationPolicy(tolerance=own, thorough=thorough, trace=trace)


def _images(folder: Path | None, model: Model) -> tuple[np.ndarray, ...]:
    if folder is None:
        return ()
    from slide_deploy.packaging.images import read_images

    first, *others = model.inputs
    if others or len(first.shape) != 4 or first.dtype != "float32":
        raise UsageError("--images needs a model of one image", "leave the option out")
    return read_images(folder, first, model.preprocessing)


def _before(reports: list[Path] | None, baseline: Path | None) -> Report | None:
    """The baseline, read; UsageError where a report cannot be written later."""
    from slide_deploy.report.formats import check_report_paths
    from slide_deploy.verification.record import read_report

    check_report_paths(reports or [])
    if baseline is None:
        return None
    if not baseline.is_file():
        raise UsageError(f"--baseline {baseline} is not a file", "give a report.json of an export")
    return read_report(baseline)


def _command() -> str:
    return " ".join(("slide-deploy", *map(shlex.quote, sys.argv[1:])))


def _finish(
    report: Report, notes: tuple[str, ...], where: str, files: list[Path] | None, *, trace: bool
) -> None:
    from slide_deploy.report.formats import write_report
    from slide_deploy.report.terminal import make_console, report_table

    console = make_console()
    for note in notes:
        console.print(f"note: {note}", style="yellow", highlight=False, markup=False)
    console.print(report_table(report, traces=trace))
    if where:
        console.print(where, highlight=False, markup=False)
    # After the table: a disk that is full must not hide the verdict.
    for path in files or []:
        write_report(report, path)
    raise typer.Exit(_EXIT[report.verdict])
