"""Renders Markdown for a CI job summary: verdict, table and problems, with collapsed details."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

from slide_deploy.report.receiver import Handout
from slide_deploy.report.replay import REPLAY_COLUMNS, replay_lines, replay_rows
from slide_deploy.report.text import (
    FIDELITY_MEANING,
    VERDICT_WORD,
    accuracy_text,
    clean,
    comparison_text,
    cost_text,
    date_text,
    estimate_lines,
    gate_text,
    gates_text,
    headline,
    number,
    operators_text,
    opinion_text,
    probes_text,
    ratio_text,
    search_text,
    size_text,
    top1_text,
)
from slide_deploy.types import Verdict
from slide_deploy.verification.record import Check, Report

__all__ = ["render", "render_handouts"]

_MARK = {Verdict.PASS: "✅", Verdict.FAIL: "❌", Verdict.NOT_RUN: "⚠️"}


def render(report: Report) -> str:
    """A Markdown section, which may follow others."""
    lines = [
        f"## {_MARK[report.verdict]} {_text(report.model)}: {VERDICT_WORD[report.verdict]}",
        "",
        _text(headline(report)),
        "",
        *(line for note in report.notes for line in (f"Note: {_text(note)}.", "")),
        *_problems(report),
        *_table(report),
        *_replay(report),
    ]
    for check in report.checks:
        if check.comparisons:
            lines += ["", *_folded(f"{check.target}: all comparisons", _details(check))]
    lines += ["", *_folded("Source and command", _provenance(report))]
    return "\n".join(lines) + "\n"


def render_handouts(report: Report, handouts: Sequence[Handout]) -> str:
    """The page for whoever receives the artifacts: a section for each, with examples."""
    made = f"Made from {report.source.path_name}, {report.source.weights} weights."
    lines = [f"# {_text(report.model)}", "", f"{_text(made)} Measurements are in report.html."]
    for handout in handouts:
        lines += ["", f"## {_text(handout.path)}", "", "| | |", "|---|---|"]
        lines += [_row(_text(term), _text(text)) for term, text in handout.facts]
        for language, code in handout.examples:
            lines += [
                "",
                f"{_text(language)}:",
                "",
                *_fenced(code, language.partition(",")[0].lower()),
            ]
    return "\n".join(lines) + "\n"


def _fenced(code: str, language: str) -> tuple[str, str, str]:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", code)), default=0))
    return f"{fence}{language}", clean(code), fence


def _table(report: Report) -> Iterator[str]:
    yield (
        "| | target | file | size | precision | max error | worst ≤ limit | SNR | operators "
        "| runtime |"
    )
    yield "|---|---|---|--:|---|--:|--:|--:|--:|---|"
    for check in report.checks:
        yield _row(
            f"{_MARK[check.verdict]} {VERDICT_WORD[check.verdict]}",
            _text(check.target),
            _text(check.path),
            size_text(check.size_bytes) if check.size_bytes else "–",
            _text(check.precision),
            number(check.max_abs_error, ".1e"),
            gate_text(check),
            number(check.snr_db, ".0f", " dB"),
            operators_text(check),
            check.fidelity or "–",
        )


def _replay(report: Report) -> Iterator[str]:
    if report.replay is None:
        return
    yield from ("", "### Compared with the earlier export", "")
    yield _row(*REPLAY_COLUMNS)
    yield "|---|---|---|---|---|--:|"
    yield from (_row(*map(_text, cells)) for cells in replay_rows(report.replay))
    yield ""
    yield from (f"- {_text(line)}" for line in replay_lines(report.replay))


def _problems(report: Report) -> Iterator[str]:
    found = [check for check in report.checks if check.problems or check.first_bad_block]
    if not found:
        return
    yield "### Problems"
    yield ""
    for check in found:
        yield f"**{_text(check.target)}**, {_text(check.path)}:"
        yield ""
        if check.first_bad_block is not None:
            block = _code(check.first_bad_block)
            yield f"- the first block whose error exceeds the noise is {block}"
        for problem in check.problems:
            yield f"- {_text(problem)}"
        yield ""


def _details(check: Check) -> Iterator[str]:
    yield f"Ran on {_text(check.runtime)} in {_text(check.ran_precision)}."
    if check.fidelity:
        yield f"{FIDELITY_MEANING[check.fidelity].capitalize()}."
    if check.other_precision:
        yield f"Computed in another type: {_text(', '.join(check.other_precision))}."
    yield ""
    for line in gates_text(check):
        yield f"- {_text(line)}"
    for note in check.notes:
        yield f"- {_text(note)}"
    yield ""
    if cost := cost_text(check):
        yield f"Cost of {_text(check.precision)}: {_text(cost)}."
    elif top1 := top1_text(check):
        yield f"Top-1: {top1}."
    if accuracy := accuracy_text(check):
        yield f"Accuracy: {_text(accuracy)}."
    if found := search_text(check):
        yield f"Search: {_text(found)}."
    for line in estimate_lines(check.estimates):
        yield f"{_text(line)}."
    if opinion := opinion_text(check):
        yield f"Second implementation: {_text(opinion)}."
    yield ""
    yield "| probe | output | max error | noise | measured ≤ limit | SNR | top-1 | near-ties | |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|---|"
    for c in check.comparisons:
        yield _row(
            _text(c.probe),
            _text(c.output),
            number(c.max_abs_error, ".1e"),
            number(c.noise_floor, ".1e"),
            comparison_text(check, c),
            number(c.snr_db, ".0f", " dB"),
            f"{c.top1_agreed}/{c.top1_decided}" if c.top1_decided else "–",
            str(c.near_ties) if c.near_ties else "–",
            _text(c.problem),
        )
    if check.trace:
        yield ""
        yield "| block | max error | × noise |"
        yield "|---|--:|--:|"
        for block in check.trace:
            name = _code(block.block)
            bad = block.block == check.first_bad_block
            yield _row(
                f"**{name}**" if bad else name,
                number(block.max_abs_error, ".1e"),
                ratio_text(block.noise_ratio),
            )
    if check.operators:
        yield ""
        listed = ", ".join(f"{_text(name)} × {count}" for name, count in check.operators.items())
        yield f"Operators: {listed}."


def _provenance(report: Report) -> Iterator[str]:
    source = report.source
    yield f"Source: {_text(source.path_name)}, {_text(source.weights)} weights."
    yield f"{probes_text(report)}"
    yield ""
    yield "| | SHA-256 |"
    yield "|---|---|"
    yield _row(_text(source.path_name), _code(source.sha256))
    for check in report.checks:
        if check.sha256:
            yield _row(_text(check.path), _code(check.sha256))
    yield ""
    versions = ", ".join(f"{_text(n)} {_text(v)}" for n, v in report.toolchain.items())
    yield f"Versions: {versions}."
    if date := date_text(report):
        yield f"Date: {_text(date)}."
    if report.command:
        yield ""
        yield from _fenced(report.command, "sh")


def _folded(summary: str, lines: Iterator[str]) -> list[str]:
    # With empty lines, GitHub renders Markdown inside HTML.
    heading = html.escape(clean(summary))
    return [f"<details><summary>{heading}</summary>", "", *lines, "", "</details>"]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _text(text: str) -> str:
    """Text escaped for Markdown and HTML, on one line."""
    line = " ".join(clean(text).split())
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(line, quote=False))


def _code(text: str) -> str:
    """Text in code style, as HTML, because a code span in a table cannot contain all characters."""
    return f"<code>{_text(text)}</code>"
