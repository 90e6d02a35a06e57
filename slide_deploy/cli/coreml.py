"""slide-deploy coreml: packages of any converter, without a Mac."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slide_deploy.cli import options as cli
from slide_deploy.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["check", "inspect", "residency", "run", "swift"]

Package = Annotated[Path, typer.Argument(metavar="PACKAGE", help="A .mlpackage of any converter.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def inspect(package: Package, as_json: Json = False) -> None:
    """Show functions, inputs, outputs, states, operations and the oldest systems that run them."""
    _require_reader(package)
    from slide_deploy.coreml import summarize
    from slide_deploy.report.coreml import summary_table
    from slide_deploy.report.terminal import make_console
    from slide_deploy.utils.records import to_json

    found = summarize(package)
    if as_json:
        typer.echo(to_json(found), nl=False)
    else:
        make_console().print(summary_table(found))


def check(
    package: Package,
    deployment_target: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A system that must run it, such as iOS17 or macOS14."),
    ] = None,
    as_json: Json = False,
    verbose: cli.Verbose = False,
) -> None:
    """List violations of Core ML's limits, what each OS version lacks, and number types."""
    _require_reader(package)
    from slide_deploy.coreml import check as look
    from slide_deploy.report.coreml import check_table
    from slide_deploy.report.terminal import make_console
    from slide_deploy.utils.records import to_json

    found = look(package, deployment_target)
    if as_json:
        typer.echo(to_json(found), nl=False)
    else:
        make_console().print(check_table(found, verbose))
    raise typer.Exit(int(not found.passed))


def residency(package: Package, as_json: Json = False, verbose: cli.Verbose = False) -> None:
    """Predict which operations may run on the Neural Engine, each with the source of the reason."""
    _require_reader(package)
    from slide_deploy.coreml import residency as predict
    from slide_deploy.report.residency import residency_table
    from slide_deploy.report.terminal import make_console
    from slide_deploy.utils.records import to_json

    found = predict(package)
    if as_json:
        typer.echo(to_json(found), nl=False)
    else:
        make_console().print(residency_table(found, verbose))


def swift(
    package: Annotated[
        Path, typer.Argument(metavar="PACKAGE", help="A .mlpackage in the folder of its export.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to write.", show_default="NAME-swift"),
    ] = None,
) -> None:
    """Write a Swift package that classifies pictures with it, and repeats its golden vectors."""
    _require_reader(package)
    from slide_deploy.coreml.swift_package import swift_package

    made = swift_package(package, output or package.with_name(f"{package.stem}-swift"))
    typer.echo(f"wrote {made}; it was not compiled here, which needs Xcode")


def run(
    package: Package,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            metavar="[NAME=]FILE",
            help="A .npy array, or a picture for an input that is an image; one for each input.",
        ),
    ] = None,
    function: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The function to run.", show_default="the package's"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the outputs to this .npz file.")
    ] = None,
    variants: Annotated[
        bool,
        typer.Option(
            "--variants",
            help="Also compute with float16 as on Apple's chips, and show the difference.",
        ),
    ] = False,
) -> None:
    """Compute the outputs for arrays and pictures from files; states start from zeros."""
    if output and output.suffix != ".npz":
        raise UsageError(f"{output} does not end in .npz", "add that suffix to --output")
    _require_reader(package)
    from slide_deploy.coreml import VARIANTS, evaluate, read, read_feeds
    from slide_deploy.report.coreml import outputs_table, spread_table
    from slide_deploy.report.terminal import make_console

    program = read(package, function)
    notes: list[str] = []
    feeds = read_feeds(program, inputs or ())
    outputs = evaluate(program, feeds, note=notes.append)
    if output:
        _save(output, outputs)
    console = make_console()
    console.print(outputs_table(outputs, notes))
    if variants:
        spread = {one: evaluate(program, feeds, variant=one) for one in VARIANTS}
        console.print(spread_table(outputs, spread))


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a .npz file; numpy.savez takes no array by the name of one of its parameters."""
    import numpy as np

    from slide_deploy.utils.staging import staged

    with staged(path) as scratch, zipfile.ZipFile(scratch, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def _require_reader(package: Path) -> None:
    """CheckpointError or MissingLibrary unless there is a package and what it is read with."""
    from slide_deploy.registry import require

    if not package.exists():
        raise CheckpointError(f"{package} does not exist", "check the path")
    require("reading a Core ML package", ("google.protobuf", "scipy"), "coreml-read")
