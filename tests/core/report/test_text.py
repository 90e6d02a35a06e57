from __future__ import annotations

import math
from dataclasses import replace

import pytest

from slide_deploy.parity.cost import PrecisionCost
from slide_deploy.parity.gates import GateKind
from slide_deploy.report import text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (1.26, "1.3"),
        (1.23e6, "1.23e+06"),
    ],
)
def test_ratio_text(value, shown):
    assert text.ratio_text(value) == shown


@pytest.mark.parametrize(
    ("date", "shown"),
    [("2026-11-25T22:33:44+00:00", "2026-11-25 22:33 UTC"), ("", ""), ("today", "today")],
)
def test_date_text(passed, date, shown):
    assert text.date_text(replace(passed, date=date)) == shown


def test_a_comparison_of_a_report_without_gates_is_told_in_noise(sample):
    check = replace(sample.passing("onnx", "a.onnx"), gates=())
    assert text.comparison_text(check, check.comparisons[0]) == "1.5 × noise"


def test_clean_leaves_nothing_that_utf8_or_xml_cannot_hold():
    everything = "".join(map(chr, range(0x110000)))
    kept = text.clean(everything)
    assert len(kept) == len(everything)
    assert kept.encode()
    assert not set(kept) & {"\x00", "\x1b", "\x7f", "\x85", "\ud800", "\ufffe"}
    assert {"\t", "\n", "é", "×", "😀"} <= set(kept)


def test_headline_counts_what_did_not_pass(passed, failed):
    assert text.headline(passed) == (
        "All 2 artifacts agree with the unfused PyTorch model in float64, ema weights."
    )
    assert text.headline(failed).startswith("1 of 3 failed, 1 of 3 not run, compared with")


def test_the_headline_of_quantized_artifacts_promises_no_equality(sample):
    cost = (PrecisionCost("logits", 38.0, 0.999),)
    quantized = replace(sample.passing("onnx", "a.onnx"), cost=cost)
    assert text.headline(sample.report(quantized)).endswith(
        "in float64, ema weights, quantized ones within the limits of what that may cost."
    )


def test_top1_names_near_ties(sample):
    check = sample.passing("onnx", "model.onnx")
    assert text.top1_text(check) == "4 of 4 rows agree, 2 near-ties not counted"


def test_a_row_shows_the_figure_that_judged_it(sample):
    assert text.gate_text(sample.passing("onnx", "a.onnx")) == "1.5 ≤ 10 × noise"
    assert text.gate_text(sample.failing("onnx", "a.onnx")) == "8.75e+06 > 10 × noise"
    assert text.gate_text(sample.float16("onnx", "a.onnx")) == "2.5 ≤ 10 dB"
    assert text.gate_text(sample.not_run("onnx", "a.onnx")) == "–"


def test_the_first_gate_that_failed_decides(sample):
    check = sample.passing("onnx", "a.onnx")
    (largest,) = check.gates
    pooled = replace(largest, kind=GateKind.POOLED_ERROR, limit=3.0, measured=3.5, passed=False)
    assert text.gate_text(replace(check, gates=(largest, pooled))) == "3.5 > 3 × noise"


def test_every_gate_tells_what_it_stands_on(sample):
    (line,) = text.gates_text(sample.float16("onnx", "a.onnx"))
    assert line == (
        "loss of signal-to-noise ratio per probe and output: 2.5 ≤ 10 dB "
        "(probe normal, output logits; against PyTorch's own float16)"
    )


def test_perturbed_copies_are_counted():
    names = ("normal", "tiny", "normal perturbed copy 1", "normal perturbed copy 2")
    assert text.list_probes(names) == "normal and 2 perturbed copies, tiny"
