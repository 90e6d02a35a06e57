"""`make conformance`: coremltools' own tests against the interpreter, compared with the table."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.conformance.document import (
    SUITE_COLUMNS,
    document,
    outcome_rows,
    suite_rows,
    table,
    table_in,
    worse,
)
from benchmarks.conformance.outcome import Outcome, Result
from benchmarks.conformance.running import run
from benchmarks.conformance.suites import CONTROL, SUITES


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.conformance", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="processes, at least 1")
    parser.add_argument("--document", type=Path, default=Path("docs/coreml-conformance.md"))
    parser.add_argument("--write", action="store_true", help="write the document anew")
    given = parser.parse_args()
    console, begin = Console(), time.monotonic()
    results = run([path for suite in SUITES for path in suite.paths], given.jobs)
    seen, broken = _control(results, given.jobs)
    seconds = time.monotonic() - begin
    _show(console, ("file", *Outcome), outcome_rows(table(results)))
    _show(console, SUITE_COLUMNS, suite_rows(results))
    control = (
        f"with each result of `{CONTROL.operation}` made {CONTROL.factor} times as large,"
        f" {seen} of the {broken} tests that use it and agreed are wrong"
    )
    console.print(f"control: {control}; {seconds / 60:.1f} minutes", highlight=False)
    problems = [] if 0 < broken == seen else ["the control: wrong numbers were not seen"]
    if given.write:
        text = document(results, control, given.jobs, seconds)
        given.document.write_text(text, encoding="utf-8")
    else:
        problems += worse(table_in(given.document.read_text("utf-8")), table(results))
    for problem in problems:
        console.print(f"worse: {problem}", highlight=False)
    return 1 if problems else 0


def _control(results: Sequence[Result], jobs: int) -> tuple[int, int]:
    """Of the tests that agreed and use an operation, how many are wrong once it is broken."""
    agreed = {r.test for r in results if r.outcome.passed and CONTROL.operation in r.operations}
    broken = run([CONTROL.path], jobs, f"{CONTROL.operation}:{CONTROL.factor}")
    concerned = [r for r in broken if r.test in agreed]
    return sum(r.outcome is Outcome.WRONG for r in concerned), len(concerned)


def _show(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    drawn = Table()
    for number, column in enumerate(columns):
        drawn.add_column(column, justify="right" if number else "left")
    for row in rows:
        drawn.add_row(*row)
    console.print(drawn)


if __name__ == "__main__":
    sys.exit(main())
