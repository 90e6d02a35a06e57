"""The page in docs/: written from the results of a run, and read to compare the next one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import version

from benchmarks.conformance.outcome import Outcome, Result
from benchmarks.conformance.suites import SUITES

__all__ = [
    *("SUITE_COLUMNS", "Table", "document", "outcome_rows", "suite_rows"),
    *("table", "table_in", "worse"),
]

# File -> how many of its tests had each outcome.
Table = Mapping[str, Counter[Outcome]]

# Asked before pytest puts the folder of the tests first, which may hold other versions.
_VERSIONS = ", ".join(f"{n} {version(n)}" for n in ("coremltools", "torch", "numpy"))

SUITE_COLUMNS = ("suite", "share run", "tests", "apply", "agree")
_BAD = (Outcome.WRONG, Outcome.REFUSED, Outcome.UNSUPPORTED, Outcome.CRASHED)

_MEANINGS = {
    Outcome.AGREED: "within the tolerance of Apple's test; in float16, where Apple's helpers widen"
    " it to 0.5 + 5 %, also within 0.2 % of the largest value",
    Outcome.ROUNDING: "beyond that, but by float16 rounding: within 0.2 % of the largest value, or"
    " the same program agrees when it is computed in float32",
    Outcome.EXPLAINED: "the test itself, or coremltools' converter, is off: see below",
    Outcome.WRONG: "numbers beyond the tolerance, or a package taken that Core ML refuses",
    Outcome.REFUSED: "a package said to contradict itself or to break a limit of Core ML",
    Outcome.UNSUPPORTED: "not computed, because it is not documented or not written",
    Outcome.CRASHED: "an error of the interpreter itself",
    Outcome.NO_NUMBERS: "passed without a prediction",
    Outcome.NOT_REACHED: "failed before the interpreter was asked: the conversion failed, or a Mac"
    " is needed",
    Outcome.SKIPPED: "by the test itself, or marked by Apple as failing in Core ML, and fails here",
}

TEXT = """\
# The Core ML interpreter against Apple's tests

Written by `make conformance`; do not edit. coremltools' own tests are run on Linux with the
interpreter in [validators/_mil](../validators/_mil/README.md) where they call Core ML: a package is
written by coremltools, read from disk, checked with `violations`, computed, and compared with the
numbers that the test expects.

    python -m benchmarks.conformance --write

{date}, {minutes:.0f} minutes on {jobs} processes; {versions}.

The tests are in the coremltools wheel: those of MIL's operations in
`coremltools/converters/mil/mil/ops/tests`, and of the torch frontend `test_torch_ops.py` and
`test_torch_stateful_model.py`. Of the parameter sets of each test a share is run, always the same,
and at least one. The other tests of the torch frontend need torchvision or compute nothing.

{suites}
The control, which shows that wrong numbers are seen: {control}.

## Outcomes

{outcomes}
{meanings}
The first seven apply to ML programs on a CPU; those that agree are `agreed` and `rounding`.

## What does not agree

{reasons}
## What does not apply

{inapplicable}
## Rules taken from Apple's tests

How many of the tests rest on a rule that no description states:

{rules}"""


def table(results: Sequence[Result]) -> Table:
    """The outcomes of each file."""
    files = sorted({result.file for result in results})
    return {f: Counter(r.outcome for r in results if r.file == f) for f in files}


def document(results: Sequence[Result], control: str, jobs: int, seconds: float) -> str:
    """The whole page."""
    remaining = Counter(
        (r.outcome, r.reason, f"{r.file} {r.function}")
        for r in results
        if r.outcome.applies and not r.outcome.passed
    )
    inapplicable = Counter(
        (r.outcome, r.reason or "no reason given")
        for r in results
        if r.outcome in (Outcome.NOT_REACHED, Outcome.SKIPPED)
    )
    rules = Counter(rule for r in results if r.outcome.passed for rule in r.rules)
    return TEXT.format(
        date=date.today().isoformat(),
        minutes=seconds / 60,
        jobs=jobs,
        versions=_VERSIONS,
        suites=_markdown(SUITE_COLUMNS, suite_rows(results)),
        control=control,
        meanings=_markdown(("outcome", "what it means"), [[*pair] for pair in _MEANINGS.items()]),
        outcomes=_markdown(("file", *Outcome), outcome_rows(table(results))),
        reasons=_markdown(
            ("outcome", "why", "test", "count"),
            [[*key, str(count)] for key, count in sorted(remaining.items())],
        ),
        inapplicable=_markdown(
            ("outcome", "why", "count"),
            [[*key, str(count)] for key, count in sorted(inapplicable.items())],
        ),
        rules=_markdown(("rule", "tests"), [[rule, str(n)] for rule, n in rules.most_common()]),
    )


def suite_rows(results: Sequence[Result]) -> list[list[str]]:
    """Each suite: its share of parameter sets, its tests, how many apply and how many agree."""
    rows = []
    for suite in SUITES:
        found = Counter(r.outcome for r in results if r.suite == suite.name)
        applying = sum(count for outcome, count in found.items() if outcome.applies)
        passed = sum(count for outcome, count in found.items() if outcome.passed)
        share = f"{passed / applying:.2%}" if applying else ""
        rows.append([suite.name, f"{suite.share:.1%}", f"{found.total()}", f"{applying}", share])
    return rows


def outcome_rows(outcomes: Table) -> list[list[str]]:
    """Each file, and all of them: how many of its tests had each outcome."""
    total = sum(outcomes.values(), Counter[Outcome]())
    return [
        [file, *(str(counts[outcome] or "") for outcome in Outcome)]
        for file, counts in [*outcomes.items(), ("all", total)]
    ]


def table_in(text: str) -> Table:
    """The outcomes of each file that a page lists."""
    lines = (line for line in text.splitlines() if re.match(r"\| \S+/\S+\.py ( *\|[ \d]*)+$", line))
    rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    return {
        file: Counter({o: int(n or 0) for o, n in zip(Outcome, counts, strict=True)})
        for file, *counts in rows
    }


def worse(before: Table, now: Table) -> list[str]:
    """One line for each file and outcome that got worse."""
    found = []
    for file in sorted({*before, *now}):
        old, new = (outcomes.get(file, Counter()) for outcomes in (before, now))
        fewer = sum(old[o] - new[o] for o in Outcome if o.passed)
        found += [f"{file}: {fewer} fewer agree"] if fewer > 0 else []
        found += [f"{file}: {new[o] - old[o]} more {o}" for o in _BAD if new[o] > old[o]]
    return found


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)
