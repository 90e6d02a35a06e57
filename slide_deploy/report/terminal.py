"""Renders tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from slide_deploy.parity.comparison import NOISE_MULTIPLE
from slide_deploy.report.fitting import fitted_table
from slide_deploy.report.replay import replay_table
from slide_deploy.report.text import (
    VERDICT_WORD,
    accuracy_text,
    clean,
    cost_text,
    estimate_lines,
    gate_text,
    gates_text,
    list_probes,
    number,
    operators_text,
    opinion_text,
    probes_text,
    search_text,
    size_text,
)
from slide_deploy.types import Verdict
from slide_deploy.utils.text import one_line
from slide_deploy.verification.record import Check, Report

if TYPE_CHECKING:
    from slide_deploy.loading.inspection import Inspection

__all__ = ["inspection_table", "make_console", "report_table"]

_STYLE = {Verdict.PASS: "bold green", Verdict.FAIL: "bold red", Verdict.NOT_RUN: "bold yellow"}


def report_table(
    report: Report,
    *,
    width: int = 160,
    traces: bool = False,
    verbose: bool = False,
    debug: bool = False,
    saved: Path | None = None,
) -> RenderableType:
    """A row per artifact, then problems, runtimes, probes and gates.

    Columns for which `width` leaves no room are omitted, except the verdict. `traces` adds the
    error at each block, `verbose` every gate and all problems, `debug` the output of a failed
    converter or runner. `saved` is the folder of report.json.
    """
    table = _checks_table(report, width)
    missing = [] if any(column.header == "file" for column in table.columns) else report.checks
    files = [Text(f"{check.target}: {one_line(check.path)}") for check in missing]
    rest = f"{saved}/report.json has all of them" if saved else "--verbose shows all of them"
    problems = [
        Text.assemble((f"{check.target}: ", "bold"), one_line(problem))
        for check in report.checks
        for problem in (
            *(check.problems if verbose else _shortened(check.problems, rest)),
            *_first_bad_block(check),
        )
    ]
    gates = [
        Text(f"{check.target}: {clean(line)}", style="dim")
        for check in report.checks
        for line in (gates_text(check) if verbose else ())
    ]
    curves = [_trace_table(check) for check in report.checks if traces and check.trace]
    details = [Text(clean(_details(check))) for check in report.checks if debug and check.details]
    footing = Text(_footing(report), style="dim")
    again = [replay_table(report.replay)] if report.replay else []
    return Group(table, *files, *problems, *gates, *curves, *details, footing, *again)


# Columns from left to right, and their priorities if there is not enough room.
_COLUMNS = (
    *("target", "file", "size", "precision", "max error", "worst ≤ limit", "SNR", "operators"),
    *("runtime", "verdict"),
)
_KEPT = ("target", "worst ≤ limit", "verdict")
_WANTED = ("max error", "file", "precision", "size", "SNR", "runtime", "operators")
_LEFT = ("target", "file", "runtime", "verdict")


def _checks_table(report: Report, width: int) -> Table:
    title = Text(one_line(f"{report.model} against the {report.reference}"))
    rows = [_row(check) for check in report.checks]
    return fitted_table(
        *(_COLUMNS, rows, width), kept=_KEPT, wanted=_WANTED, left=_LEFT, title=title
    )


def _shortened(problems: tuple[str, ...], rest: str, most: int = 4) -> tuple[str, ...]:
    """The first problems, and the place of the others, since one wrong weight fails every probe."""
    if len(problems) <= most + 1:
        return problems
    return (*problems[:most], f"… and {len(problems) - most} more; {rest}")


def _details(check: Check) -> str:
    return f"\n{check.target}, details:\n{check.details.rstrip()}\n"


def _trace_table(check: Check) -> RenderableType:
    """The error at each block, as bars on a logarithmic scale."""
    table = Table(title=f"{check.target}, error at each block", title_justify="left")
    table.add_column("block")
    table.add_column("max error", justify="right")
    table.add_column("× noise", justify="right")
    table.add_column("")
    for error in check.trace:
        beyond = error.noise_ratio > NOISE_MULTIPLE
        length = max(1, min(30, round(4 * math.log10(max(error.noise_ratio, 1.0) * 2))))
        table.add_row(
            Text(
                one_line(error.block),
                style="bold red" if error.block == check.first_bad_block else "",
            ),
            number(error.max_abs_error, ".1e") if error.found else "merged",
            number(error.noise_ratio, ".1f") if error.found else "–",
            Text("█" * length, style="red" if beyond else "green") if error.found else "",
        )
    return table


def _row(check: Check) -> tuple[str | Text, ...]:
    return (
        check.target,
        Text(one_line(check.path)),
        size_text(check.size_bytes) if check.size_bytes else "–",
        clean(check.precision),
        number(check.max_abs_error, ".1e"),
        gate_text(check),
        number(check.snr_db, ".0f", " dB"),
        operators_text(check),
        check.fidelity.value if check.fidelity else "–",
        Text(VERDICT_WORD[check.verdict], style=_STYLE[check.verdict]),
    )


def _footing(report: Report) -> str:
    read = [check for check in report.checks if check.runtime]
    runtimes = "; ".join(
        f"{check.target} ran on {check.runtime} in {check.ran_precision}{_mixed(check)}"
        for check in read
    )
    if not read:
        return "Nothing was run."
    probes = list_probes(dict.fromkeys(name for check in read for name in check.probes or ()))
    gates = dict.fromkeys(f"{check.precision}: {check.gate}" for check in read)
    custom = sum(len(check.custom_operators) for check in read)
    operators = f"{custom} custom operators" if custom else "Standard operators only"
    notes = "".join(f"\n{check.target}: {note}." for check in read for note in check.notes)
    costs = "".join(
        f"\n{check.target}, cost of {check.precision}: {cost_text(check)}."
        for check in read
        if check.cost
    )
    costs += "".join(
        f"\n{check.target}, accuracy: {found}." for check in read if (found := accuracy_text(check))
    )
    costs += "".join(
        f"\n{check.target}, search: {found}." for check in read if (found := search_text(check))
    )
    estimates = "".join(
        f"\n{check.target}, {line}." for check in read for line in estimate_lines(check.estimates)
    )
    opinions = "".join(
        f"\n{check.target}, second implementation: {opinion_text(check)}."
        for check in read
        if check.second_opinion
    )
    return (
        f"{runtimes}.{costs}{opinions}{estimates}{notes}\nProbes: {probes}. {probes_text(report)}\n"
        f"Gate, {'; '.join(gates)}.\n{operators}. No GPU was visible."
    )


def _mixed(check: Check) -> str:
    """The number of operations that computed in another type."""
    count = len(check.other_precision)
    return f" ({count} operation{'' if count == 1 else 's'} in another type)" if count else ""


def _first_bad_block(check: Check) -> tuple[str, ...]:
    if check.first_bad_block is None:
        return ()
    return (f"the first block whose error exceeds the noise is {check.first_bad_block}",)


def inspection_table(found: Inspection) -> RenderableType:
    """Facts about a checkpoint, then one row per Slide Attention."""
    model = found.model
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold")
    facts.add_column()
    facts.add_row("file", Text(one_line(f"{model.source.path_name} ({model.kind})")))
    facts.add_row("sha256", model.source.sha256)
    facts.add_row("weights", _weights(model.source.weights))
    facts.add_row("family", model.family)
    for spec in model.inputs:
        facts.add_row("input", f"{spec.name} {'x'.join(map(str, spec.shape))} {spec.dtype}")
    for spec in model.outputs:
        facts.add_row("output", f"{spec.name} {'x'.join(map(str, spec.shape))} {spec.dtype}")
    for name, value in _flat(found.config):
        facts.add_row(name, Text(one_line(value)))
    facts.add_row("parameters", f"{found.parameters / 1e6:.2f} M")
    facts.add_row("FLOPs", f"{found.flops / 1e9:.3g} G multiply-adds per image, fused")

    shifts = Table(title="deformed shifts", title_justify="left")
    for column in ("layer", "heads × channels", "kernel", "learned share"):
        shifts.add_column(column, justify="left" if column == "layer" else "right")
    for shift in found.shifts:
        sizes = shift.config
        shifts.add_row(
            Text(one_line(shift.name)),
            f"{sizes.heads} × {sizes.head_dim}",
            f"{sizes.kernel_size}x{sizes.kernel_size}",
            f"{shift.off_tap_share:.1%}",
        )
    legend = (
        "learned share: ‖fused kernel without its one-hot tap‖ / ‖fused kernel‖; "
        "0 % is a pure shift"
    )
    notes = [Text(one_line(f"note: {note}"), style="yellow") for note in model.notes]
    return Group(facts, Text(), shifts, Text(legend, style="dim"), *notes)


def _weights(name: str) -> str:
    return "ema (averaged; --weights model selects the others)" if name == "ema" else name


def _flat(config: Mapping[str, object]) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in config.items():
        if isinstance(value, Mapping):
            rows += _flat(value)
        elif isinstance(value, (list, tuple)):
            rows.append((name.replace("_", " "), ", ".join(map(str, value))))
        else:
            rows.append((name.replace("_", " "), "–" if value is None else str(value)))
    return rows


def make_console(*, stderr: bool = False) -> Console:
    """A console that is 160 columns wide if the output is not a terminal."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=160)
