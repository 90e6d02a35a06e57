"""The command line: parse → pipeline → render → exit code; nothing else."""

from __future__ import annotations

import sys
import traceback
from contextlib import suppress
from typing import Annotated, Any

import typer

from slide_deploy import __version__
from slide_deploy.cli import coreml
from slide_deploy.cli.bench import bench
from slide_deploy.cli.export import export
from slide_deploy.cli.fuse import fuse
from slide_deploy.cli.inspect import inspect
from slide_deploy.cli.streams import OutputLost, drop_unwritten, exit_on_signals, safe_streams
from slide_deploy.cli.targets import targets
from slide_deploy.cli.tune import tune
from slide_deploy.cli.verify import verify
from slide_deploy.errors import SlideDeployError

__all__ = ["app", "main"]

EXIT_CODES = (
    "Exit codes: 0 all passed, 1 a verdict failed, 2 bad input or usage, 3 a library is missing, "
    "70 an unexpected error, 128 + N ended by signal N (130: interrupted)."
)
_USAGE, _UNEXPECTED, _INTERRUPTED, _PIPE_CLOSED = 2, 70, 130, 141

# typer carries a copy of click in some versions and uses the package in others.
_BadUsage: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    help="Export Slide-Transformers and prove each artifact against PyTorch.",
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
        bool, typer.Option("--debug", help="Show tracebacks; takes effect anywhere on the line.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options of no command; both are dealt with before this runs."""


for _command in (export, verify, inspect, fuse, targets, bench, tune):
    app.command(epilog=EXIT_CODES)(_command)

_coreml = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
for _part in (coreml.inspect, coreml.check, coreml.run):
    _coreml.command(epilog=EXIT_CODES)(_part)
app.add_typer(
    _coreml, name="coreml", help="Inspect, check and run Core ML packages, on any system."
)


def main() -> None:
    """Entry point: errors become one line and a stable exit code."""
    safe_streams()
    # --debug belongs to no command: people add it to the end of the line that failed.
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
    """Print what a user needs to know of an error; its exit code."""
    if isinstance(error, SystemExit):  # of a signal
        return error.code if isinstance(error.code, int) else _UNEXPECTED
    if isinstance(error, KeyboardInterrupt):
        return _INTERRUPTED
    if isinstance(error, OutputLost) and error.closed:
        return _PIPE_CLOSED
    if isinstance(error, typer.Abort):  # typer's name for the end of standard input
        error = error.__cause__ or error
    message, hint, code = _described(error, debug=debug)
    with suppress(OSError):
        if debug:
            traceback.print_exception(error)
        if message:
            print(f"error: {_one_line(message)}", file=sys.stderr)
        if hint:
            print(f"  → {_one_line(hint)}", file=sys.stderr)
    return code


def _described(error: BaseException, *, debug: bool) -> tuple[str, str, int]:
    """Message, way out and exit code."""
    if isinstance(error, SlideDeployError):
        return error.message, error.hint, error.exit_code
    if isinstance(error, _BadUsage):
        return _bad_usage(error)
    if isinstance(error, OutputLost):
        hint = "free some space, or write elsewhere"
        return f"cannot write to standard output: {error}", hint, _UNEXPECTED
    what = f"{type(error).__name__}: {error}"
    hint = "report it, with the traceback"
    hint = hint if debug else f"run again with --debug and {hint}"
    return f"unexpected failure: {' '.join(what.split())}", hint, _UNEXPECTED


def _bad_usage(error: Any) -> tuple[str, str, int]:
    """What typer says of the arguments; nothing where it has printed the help instead."""
    message = " ".join(error.format_message().split()).rstrip(".")
    if type(error).__name__ == "NoArgsIsHelpError":
        return "", "", _USAGE
    command = error.ctx.command_path if error.ctx else "slide-deploy"
    return message[:1].lower() + message[1:], f"{command} --help lists what it takes", _USAGE


def _one_line(text: str) -> str:
    """File names and keys come from others: nothing in them may start a line or move a cursor."""
    return "".join(sign if sign.isprintable() else "�" for sign in text)
