"""Texts and numbers that all renderers share."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from slide_deploy.parity.comparison import Comparison
from slide_deploy.parity.cost import PrecisionCost
from slide_deploy.parity.gates import EACH_COMPARISON, MEANING, GateKind, GateResult
from slide_deploy.parity.probes import is_sample, source
from slide_deploy.protocols import Estimate
from slide_deploy.quantization.search import Trial
from slide_deploy.types import Fidelity, Verdict
from slide_deploy.verification.record import Check, Report

__all__ = [
    "FIDELITY_MEANING",
    "VERDICT_WORD",
    "accuracy_text",
    "clean",
    "comparison_text",
    "cost_text",
    "date_text",
    "estimate_lines",
    "gate_text",
    "gates_text",
    "headline",
    "list_probes",
    "number",
    "operators_text",
    "opinion_text",
    "probes_text",
    "ratio_text",
    "search_text",
    "size_text",
    "top1_text",
]

VERDICT_WORD = {Verdict.PASS: "passed", Verdict.FAIL: "FAILED", Verdict.NOT_RUN: "not run"}

FIDELITY_MEANING = {
    Fidelity.NATIVE: "native: the vendor's own runtime computed the outputs",
    Fidelity.SIMULATED: "simulated: the vendor's simulator of the device computed the outputs; no "
    "device was used",
    Fidelity.INTERPRETED: "interpreted: slide-deploy's interpreter computed the outputs from the "
    "documentation of the format, because the vendor's runtime does not exist on this system",
}

# Characters that XML 1.0 does not allow, and lone surrogates, which UTF-8 cannot encode.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

# What stands in place of a figure that there is not.
NOT_MEASURED = "–"


def clean(text: str) -> str:
    """Replace control characters and lone surrogates, which not every format allows, by U+FFFD."""
    return _UNPRINTABLE.sub("\ufffd", text)


def number(value: float | None, form: str, unit: str = "") -> str:
    """A number, or a dash for None and NaN."""
    if value is None or math.isnan(value):
        return NOT_MEASURED
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:{form}}{unit}"


def ratio_text(value: float | None) -> str:
    """An error as a multiple of the noise, with fewer digits the larger it is."""
    size = abs(value or 0.0)
    return number(value, ".1f" if size < 100 else ".0f" if size < 10_000 else ".2e")


def date_text(report: Report) -> str:
    """When the run ended, to the minute, such as 2026-11-25 22:33 UTC; empty in older reports."""
    try:
        return f"{datetime.fromisoformat(report.date):%Y-%m-%d %H:%M %Z}".rstrip()
    except ValueError:
        return report.date


def size_text(size: int) -> str:
    """A size in kB or MB."""
    if size < 1_000_000:
        return f"{size / 1e3:.1f} kB"
    return f"{size / 1e6:.1f} MB"


def operators_text(check: Check) -> str:
    """The number of operators, and of kinds of operators."""
    if not check.operators:
        return "–"
    return f"{sum(check.operators.values())} ({len(check.operators)} kinds)"


def opinion_text(check: Check) -> str:
    """The result of the second implementation; empty if none was run."""
    opinion = check.second_opinion
    if opinion is None:
        return ""
    error = number(opinion.max_abs_error, ".1e")
    return f"{opinion.runtime} {VERDICT_WORD[opinion.verdict]}, max error {error}"


def list_probes(names: Iterable[str]) -> str:
    """The names of the probes, with the number of perturbed copies of each; samples as a number."""
    names = list(names)
    samples = sum(map(is_sample, names))
    counts = Counter(source(name) for name in names if not is_sample(name))
    copied = {name: f" and {count - 1} perturbed copies" for name, count in counts.items()}
    listed = [name + (copied[name] if counts[name] > 1 else "") for name in counts]
    return ", ".join([*listed, *([f"{samples} runs on samples"] if samples else [])])


def cost_text(check: Check) -> str:
    """What a quantized precision costs on the calibration set, and on the images of --images; empty
    for others."""
    held_out = f"; on the images of --images {_costs_text(check.held_out)}" * bool(check.held_out)
    return f"{_costs_text(check.cost)}{held_out}"


def accuracy_text(check: Check) -> str:
    """The top-1 accuracy of the artifact and of its checkpoint; empty where it was not measured."""
    if (own := check.accuracy) is None:
        return ""
    return (
        f"top-1 {number(own.top1, '.2f', ' %')} of {own.images} images of {own.data}, "
        f"{number(own.reference_top1, '.2f', ' %')} by the checkpoint"
    )


def _costs_text(costs: Iterable[PrecisionCost]) -> str:
    return "; ".join(
        f"{cost.output} {number(cost.snr_db, '.1f', ' dB')}, cosine {number(cost.cosine, '.5f')}"
        + (
            f", {cost.top1_agreed} of {cost.top1_decided} best classes kept"
            * bool(cost.top1_decided)
        )
        for cost in costs
    )


def estimate_lines(estimates: Iterable[Estimate]) -> tuple[str, ...]:
    """A compiler's estimate for each device of an artifact, as a line."""
    return tuple(
        f"{own.device}, estimated by {own.tool}: {own.cycles:,} cycles "
        f"({own.milliseconds:.2f} ms at {own.clock_mhz:.0f} MHz), {size_text(own.sram_bytes)} of "
        f"SRAM, {size_text(own.other_bytes)} of other memory, {own.mac_utilisation:.1f} % of its "
        f"multiply-adds; {own.on_npu} operators on the NPU, {_on_cpu(own)} on the CPU"
        for own in estimates
    )


def _on_cpu(estimate: Estimate) -> str:
    """How many operators stay on the CPU, and in which blocks."""
    if not estimate.on_cpu:
        return "none"
    return f"{len(estimate.on_cpu)} ({', '.join(estimate.on_cpu)})"


def search_text(check: Check) -> str:
    """Which settings are used and which parts stay in float, as a search found; empty without
    one."""
    if (found := check.search) is None:
        return ""
    plain = _found_text(found.trials[0])
    if not found.kept and not found.settings:
        return f"every part is quantized, which gives {plain}"
    chosen = [f"{name} {value}" for name, value in found.settings.items()]
    is_kind = set(found.kept) <= set(found.kinds)
    kept = "".join(found.kept) if is_kind else f"{len(found.kept)} of {len(found.parts)} parts"
    ratio, right = number(found.min_snr_db, "g", " dB"), number(found.min_top1, ".2f", " % top-1")
    goals = [text for text in (ratio, right) if text != NOT_MEASURED]
    enough = "for" if found.reached else "and do not suffice for"
    given = _found_text(Trial(found.kept, found.snr_db, found.settings, found.top1))
    names = "" if is_kind else f": {', '.join(found.kept)}"
    how = " and ".join([*chosen, *[f"{kept} stay in float"] * bool(found.kept)])
    return f"{how} {enough} {' and '.join(goals)} ({given}; {plain} without){names}"


def _found_text(trial: Trial) -> str:
    right = number(trial.top1, ".2f", " % top-1")
    return number(trial.snr_db, ".1f", " dB") + f", {right}" * (right != NOT_MEASURED)


def probes_text(report: Report) -> str:
    """Whether whoever made the artifacts could know the probes."""
    if report.seed is None:
        return (
            "All probes were known before: whoever made the artifacts could answer them alone. "
            "With --against model.pth, verify adds fresh ones."
        )
    return f"Fresh probes were drawn from seed {report.seed}: --seed {report.seed} repeats them."


def top1_text(check: Check) -> str:
    """Top-1 agreement over all probes; empty if the outputs are not class scores."""
    decided = sum(c.top1_decided for c in check.comparisons)
    agreed = sum(c.top1_agreed for c in check.comparisons)
    ties = sum(c.near_ties for c in check.comparisons)
    if not decided and not ties:
        return ""
    near = f"{ties} near-tie{'' if ties == 1 else 's'} not counted"
    return f"{agreed} of {decided} rows agree" + (f", {near}" if ties else "")


def headline(report: Report) -> str:
    """The overall verdict as a sentence."""
    found = Counter(check.verdict for check in report.checks)
    total = len(report.checks)
    if not total:
        return "Nothing was checked."
    every = "The artifact agrees" if total == 1 else f"All {total} artifacts agree"
    if report.verdict is Verdict.PASS:
        costly = any(check.cost for check in report.checks)
        limits = ", quantized ones within the limits of what that may cost" if costly else ""
        return f"{every} with the {report.reference}{limits}."
    parts = [
        f"{found[verdict]} of {total} {VERDICT_WORD[verdict].lower()}"
        for verdict in (Verdict.FAIL, Verdict.NOT_RUN)
        if found[verdict]
    ]
    return f"{', '.join(parts)}, compared with the {report.reference}."


def gate_text(check: Check) -> str:
    """Measured value and limit of the first gate that failed, else of the first gate."""
    failed = [result for result in check.gates if not result.passed]
    return next((_against_limit(result) for result in (*failed, *check.gates)), "–")


def gates_text(check: Check) -> list[str]:
    """One line per gate, with the worst measured value, the limit and its basis."""
    return [
        f"{MEANING[result.kind]}: {_against_limit(result)} ({_place(result)}{result.basis})"
        for result in check.gates
    ]


def comparison_text(check: Check, comparison: Comparison) -> str:
    """The figure that one output on one probe was judged by, and its limit."""
    gate = next((result for result in check.gates if result.kind in EACH_COMPARISON), None)
    if gate is None:  # written before reports had gates
        return f"{ratio_text(comparison.noise_ratio)} × noise"
    known = comparison.noise_ratio if gate.kind is GateKind.MAX_ERROR else math.nan
    measured = comparison.measured.get(gate.kind, known)
    return _against_limit(replace(gate, measured=measured, passed=measured <= gate.limit))


def _place(result: GateResult) -> str:
    probe = f"probe {result.probe}, " if result.probe else ""
    return f"{probe}output {result.output}; " if result.output else ""


def _against_limit(result: GateResult) -> str:
    measured = (
        number(result.measured, ".1e")
        if result.kind is GateKind.TOLERANCE
        else ratio_text(result.measured)
    )
    sign = "≤" if result.passed else ">"
    return f"{measured} {sign} {result.limit:g} {result.unit}".rstrip()
