"""The command line application: its commands, and the conversion of errors to exit codes."""

from __future__ import annotations

import sys
import traceback
from contextlib import suppress
from typing import Annotated, Any

import typer

from slide_deploy import __version__
from slide_deploy.cli import coreml, debug
from slide_deploy.cli.bench import bench
from slide_deploy.cli.configured import Configured
from slide_deploy.cli.evaluate import evaluate
from slide_deploy.cli.export import export
from slide_deploy.cli.fuse import fuse
from slide_deploy.cli.inspect import inspect
from slide_deploy.cli.predict import predict
from slide_deploy.cli.profiles import profiles
from slide_deploy.cli.streams import OutputLost, drop_unwritten, exit_on_signals, safe_streams
from slide_deploy.cli.targets import targets
from slide_deploy.cli.tune import tune
from slide_deploy.cli.verify import verify
from slide_deploy.errors import SlideDeployError
from slide_deploy.utils.text import one_line

__all__ = ["app", "main"]

EXIT_CODES = (
    "Exit codes: 0 all artifacts passed, 1 an artifact failed, 2 bad input or usage, "
    "3 a library is missing, 70 an unexpected error, 128 + N ended by signal N (130: interrupted)."
)
_USAGE, _UNEXPECTED, _INTERRUPTED, _PIPE_CLOSED = 2, 70, 130, 141

# Some versions of typer vendor click, others import the package.
_BadUsage: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    help="Export Slide-Transformers and verify each artifact against PyTorch.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"slide-deploy {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks; allowed anywhere in the command.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Declare the global options, which are handled before this runs."""


app.command(epilog=EXIT_CODES, cls=Configured)(export)
for _command in (verify, predict, evaluate, inspect, fuse, targets, profiles, bench, tune):
    app.command(epilog=EXIT_CODES)(_command)

_coreml = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
for _part in (coreml.inspect, coreml.check, coreml.residency, coreml.run, coreml.swift):
    _coreml.command(epilog=EXIT_CODES)(_part)
app.add_typer(
    _coreml, name="coreml", help="Inspect, check and run Core ML packages, on any system."
)

_debug = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
for _tool in (debug.precision, debug.reduce):
    _debug.command(epilog=EXIT_CODES)(_tool)
app.add_typer(_debug, name="debug", help="Find out where an artifact goes wrong.")


def main() -> None:
    """Entry point: prints an error as one line with a hint, and exits with a stable code."""
    safe_streams()
    # Accepted anywhere, because users append it to the command that failed.
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    with exit_on_signals():
        try:
            code = app(arguments, prog_name="slide-deploy", standalone_mode=False) or 0
            sys.stdout.flush()
        except BaseException as error:
            code = _explain(error, debug=debug)
    drop_unwritten()
    raise SystemExit(code)


def _explain(error: BaseException, *, debug: bool) -> int:
    """Print an error and its hint, and return its exit code."""
    if isinstance(error, SystemExit):  # raised by a signal handler
        return error.code if isinstance(error.code, int) else _UNEXPECTED
    if isinstance(error, KeyboardInterrupt):
        return _INTERRUPTED
    if isinstance(error, OutputLost) and error.closed:
        return _PIPE_CLOSED
    if isinstance(error, typer.Abort):  # typer raises it at the end of standard input
        error = error.__cause__ or error
    message, hint, code = _described(error, debug=debug)
    with suppress(OSError):
        if debug:
            for line in "".join(traceback.format_exception(error)).splitlines():
                print(one_line(line), file=sys.stderr)
        if message:
            print(f"error: {one_line(message)}", file=sys.stderr)
        if hint:
            print(f"  → {one_line(hint)}", file=sys.stderr)
    return code


def _described(error: BaseException, *, debug: bool) -> tuple[str, str, int]:
    """Message, hint and exit code."""
    if isinstance(error, SlideDeployError):
        return error.message, error.hint, error.exit_code
    if isinstance(error, _BadUsage):
        return _bad_usage(error)
    if isinstance(error, OutputLost):
        hint = "free disk space, or redirect the output to another place"
        return f"cannot write to standard output: {error}", hint, _UNEXPECTED
    text = f"{type(error).__name__}: {error}"
    hint = "report it, with the traceback"
    hint = hint if debug else f"run again with --debug and {hint}"
    return f"unexpected failure: {' '.join(text.split())}", hint, _UNEXPECTED


def _bad_usage(error: Any) -> tuple[str, str, int]:
    """Typer's message; empty if it has printed the help instead."""
    message = " ".join(error.format_message().split()).rstrip(".")
    if type(error).__name__ == "NoArgsIsHelpError":
        return "", "", _USAGE
    command = error.ctx.command_path if error.ctx else "slide-deploy"
    return message[:1].lower() + message[1:], f"{command} --help lists what it takes", _USAGE
