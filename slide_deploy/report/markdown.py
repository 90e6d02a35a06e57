"""Markdown made for a CI job summary: verdict, table, problems; the rest is folded away."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from slide_deploy.report.text import (
    FIDELITY_MEANING,
    VERDICT_WORD,
    clean,
    gate_text,
    gates_text,
    headline,
    number,
    operators_text,
    opinion_text,
    probes_text,
    ratio_text,
    size_text,
    top1_text,
)
from slide_deploy.types import Verdict
from slide_deploy.verification.record import Check, Report

__all__ = ["render"]

_MARK = {Verdict.PASS: "✅", Verdict.FAIL: "❌", Verdict.NOT_RUN: "⚠️"}


def render(report: Report) -> str:
    """A section that can be appended to others."""
    lines = [
        f"## {_MARK[report.verdict]} {_text(report.model)}: {VERDICT_WORD[report.verdict]}",
        "",
        _text(headline(report)),
        "",
        *_table(report),
        *_problems(report),
    ]
    for check in report.checks:
        if check.comparisons:
            lines += ["", *_folded(f"{check.target}: every comparison", _details(check))]
    lines += ["", *_folded("What was checked, and how to repeat it", _provenance(report))]
    return "\n".join(lines) + "\n"


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


def _problems(report: Report) -> Iterator[str]:
    found = [check for check in report.checks if check.problems or check.first_bad_block]
    if not found:
        return
    yield ""
    yield "### Problems"
    for check in found:
        yield ""
        yield f"**{_text(check.target)}**, {_text(check.path)}:"
        yield ""
        if check.first_bad_block is not None:
            block = _code(check.first_bad_block)
            yield f"- the first block whose error exceeds the noise is {block}"
        for problem in check.problems:
            yield f"- {_text(problem)}"


def _details(check: Check) -> Iterator[str]:
    yield f"Ran on {_text(check.runtime)} in {_text(check.ran_precision)}."
    if check.fidelity:
        yield f"{FIDELITY_MEANING[check.fidelity].capitalize()}."
    if check.other_precision:
        yield f"In another type: {_text(', '.join(check.other_precision))}."
    yield ""
    for line in gates_text(check):
        yield f"- {_text(line)}"
    for note in check.notes:
        yield f"- {_text(note)}"
    yield ""
    if top1 := top1_text(check):
        yield f"Top-1: {top1}."
    if opinion := opinion_text(check):
        yield f"Second opinion: {_text(opinion)}."
    yield ""
    yield "| probe | output | max error | noise | × noise | SNR | top-1 | near-ties | |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|---|"
    for c in check.comparisons:
        yield _row(
            _text(c.probe),
            _text(c.output),
            number(c.max_abs_error, ".1e"),
            number(c.noise_floor, ".1e"),
            ratio_text(c.noise_ratio),
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
    if report.command:
        yield ""
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", report.command)), default=0))
        yield f"{fence}sh"
        yield clean(report.command)
        yield fence


def _folded(summary: str, lines: Iterator[str]) -> list[str]:
    # The empty lines make GitHub read Markdown inside HTML.
    heading = html.escape(clean(summary))
    return [f"<details><summary>{heading}</summary>", "", *lines, "", "</details>"]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _text(text: str) -> str:
    """Text that Markdown and HTML take literally, on one line."""
    line = " ".join(clean(text).split())
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(line, quote=False))


def _code(text: str) -> str:
    """Text in code style; HTML, because a code span cannot hold every character in a table."""
    return f"<code>{_text(text)}</code>"
