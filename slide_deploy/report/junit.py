"""JUnit XML, for CI systems that show test results: one test case per artifact."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from slide_deploy.report.text import (
    accuracy_text,
    clean,
    cost_text,
    estimate_lines,
    gates_text,
    headline,
    number,
    opinion_text,
    top1_text,
)
from slide_deploy.types import Verdict
from slide_deploy.verification.record import Check, Report

__all__ = ["render"]


def render(report: Report) -> str:
    """One suite, named after the model; artifacts that did not run are skipped tests."""
    verdicts = [check.verdict for check in report.checks]
    counts = {
        "tests": str(len(verdicts)),
        "failures": str(verdicts.count(Verdict.FAIL)),
        "errors": "0",
        "skipped": str(verdicts.count(Verdict.NOT_RUN)),
        "time": _seconds(*report.checks),
    }
    root = ET.Element("testsuites", counts)
    name = clean(f"slide-deploy {report.model}")
    when = {"timestamp": clean(report.date)} if report.date else {}
    suite = ET.SubElement(root, "testsuite", {"name": name, **counts, **when})
    properties = ET.SubElement(suite, "properties")
    facts = {
        "reference": report.reference,
        "source": report.source.path_name,
        "source sha256": report.source.sha256,
        "weights": report.source.weights,
        "command": report.command,
        **report.toolchain,
    }
    for fact, value in facts.items():
        ET.SubElement(properties, "property", {"name": clean(fact), "value": clean(value)})
    for check in report.checks:
        suite.append(_case(check))
    ET.SubElement(suite, "system-out").text = clean(headline(report))
    ET.indent(root)
    # ElementTree omits the declaration in text that is not encoded.
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _case(check: Check) -> ET.Element:
    about = {
        "classname": f"slide_deploy.{check.target}",
        "name": clean(f"{check.path} ({check.precision})"),
        "time": _seconds(check),
    }
    case = ET.Element("testcase", about)
    if check.verdict is not Verdict.PASS:
        kind = "failure" if check.verdict is Verdict.FAIL else "skipped"
        problems = [*check.problems]
        if check.first_bad_block is not None:
            problems.append(
                f"the first block whose error exceeds the noise is {check.first_bad_block}"
            )
        message = problems[0] if problems else "no reason was recorded"
        part = ET.SubElement(case, kind, {"message": clean(message)})
        part.text = clean("\n".join(problems))
    ET.SubElement(case, "system-out").text = clean(_details(check))
    return case


def _seconds(*checks: Check) -> str:
    return f"{sum(check.seconds or 0.0 for check in checks):.3f}"


def _details(check: Check) -> str:
    if not check.runtime:
        return "The artifact was not run."
    error, snr = number(check.max_abs_error, ".1e"), number(check.snr_db, ".0f", " dB")
    lines = [
        f"ran on {check.runtime} ({check.fidelity}) in {check.ran_precision}",
        *gates_text(check),
        f"max error {error}, SNR {snr}",
        f"top-1: {'' if check.cost else top1_text(check)}",
        f"cost of {check.precision}: {cost_text(check)}",
        f"accuracy: {accuracy_text(check)}",
        f"second implementation: {opinion_text(check)}",
        *estimate_lines(check.estimates),
        f"sha256 {check.sha256}, {check.size_bytes} bytes",
    ]
    return "\n".join(line for line in lines if not line.endswith(": "))
