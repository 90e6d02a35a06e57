"""Verification policy, baseline and output (table, JSON, reports, exit code) of a command."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from slide_deploy.errors import UsageError
from slide_deploy.types import Verdict
from slide_deploy.utils.text import one_line

if TYPE_CHECKING:
    from slide_deploy.verification.judge import VerificationPolicy
    from slide_deploy.verification.record import Report

__all__ = ["Reporting", "command_line", "make_policy", "read_baseline"]

_EXIT = {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.NOT_RUN: 3}
_STDOUT = Path("-")


@dataclass(frozen=True)
class Reporting:
    """What a command prints and writes. With `as_json`, standard output is the JSON report only.

    `of` raises UsageError for contradictory options and for reports that cannot be written.
    """

    files: tuple[Path, ...]
    as_json: bool
    quiet: bool
    verbose: bool

    @classmethod
    def of(
        cls, files: Sequence[Path] | None, *, as_json: bool, quiet: bool, verbose: bool
    ) -> Reporting:
        from slide_deploy.report.formats import check_report_paths

        if quiet and verbose:
            raise UsageError("--quiet and --verbose contradict each other", "use one of them")
        named = tuple(path for path in files or () if path != _STDOUT)
        check_report_paths(named)
        return cls(named, as_json or _STDOUT in (files or ()), quiet, verbose)

    def progress(self) -> AbstractContextManager[Callable[[str], None]]:
        """A progress reporter."""
        from slide_deploy.report.progress import progress_reporter

        return progress_reporter(quiet=self.quiet)

    def finish(
        self,
        report: Report,
        notes: Sequence[str] = (),
        folder: Path | None = None,
        *,
        trace: bool = False,
    ) -> None:
        """Print and write the report, then exit with the code of the verdict.

        `notes` are assumptions about the model, `folder` is the output folder of an export.
        """
        from slide_deploy.report.formats import write_report

        try:
            self._print(report, notes, folder, trace=trace)
        finally:  # after the table, so that a full disk does not hide the verdict
            for path in self.files:
                write_report(report, path)
        raise typer.Exit(_EXIT[report.verdict])

    def _print(
        self, report: Report, notes: Sequence[str], folder: Path | None, *, trace: bool
    ) -> None:
        from slide_deploy.report.terminal import make_console, report_table
        from slide_deploy.utils.records import to_json

        console = make_console(stderr=self.as_json)
        if not self.quiet:
            for note in (*notes, *report.notes):
                console.print(
                    one_line(f"note: {note}"), style="yellow", highlight=False, markup=False
                )
        if self.as_json:
            typer.echo(to_json(report), nl=False)
        elif not self.quiet:
            table = report_table(
                report,
                width=console.width,
                traces=trace,
                verbose=self.verbose,
                debug="--debug" in sys.argv,
                saved=folder,
            )
            console.print(table)
        if folder and not self.quiet:
            page = f"{report.model}.md for receivers"
            where = (
                f"Artifacts, {page}, manifest.json, golden vectors, report.json and .html are in"
            )
            console.print(one_line(f"{where} {folder}/"), highlight=False, markup=False)


def make_policy(
    atol: float | None,
    rtol: float | None,
    precision: str | None = None,
    max_drop: float | None = None,
    full_npu: bool = False,
    *,
    thorough: bool,
    trace: bool,
) -> VerificationPolicy:
    """The policy selected by the options; UsageError for a negative tolerance, UnknownName for a
    precision that does not exist."""
    from slide_deploy.parity.comparison import Tolerance
    from slide_deploy.quantization.catalog import scheme_named
    from slide_deploy.verification.judge import VerificationPolicy

    if min(atol or 0.0, rtol or 0.0) < 0:
        raise UsageError("a tolerance cannot be negative", "use 0 or more, such as 1e-4")
    own = None if atol is None and rtol is None else Tolerance(atol or 0.0, rtol or 0.0)
    asked = scheme_named(precision).name if precision else None
    return VerificationPolicy(
        tolerance=own,
        precision=asked,
        thorough=thorough,
        trace=trace,
        max_drop=max_drop,
        require_full_npu=full_npu,
    )


def read_baseline(path: Path | None) -> Report | None:
    """Read the report of --baseline, before an export into its folder replaces it."""
    from slide_deploy.verification.record import read_report

    if path is None:
        return None
    if not path.is_file():
        raise UsageError(f"--baseline {path} is not a file", "name a report.json of an export")
    return read_report(path)


def command_line() -> str:
    """The running command, quoted for a shell."""
    return " ".join(("slide-deploy", *map(shlex.quote, sys.argv[1:])))
