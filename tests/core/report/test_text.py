from __future__ import annotations

import math

import pytest

from slide_deploy.report import text as words


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
    assert words.ratio_text(value) == shown


def test_clean_leaves_nothing_that_utf8_or_xml_cannot_hold():
    everything = "".join(map(chr, range(0x110000)))
    kept = words.clean(everything)
    assert len(kept) == len(everything)
    assert kept.encode()
    assert not set(kept) & {"\x00", "\x1b", "\x7f", "\x85", "\ud800", "\ufffe"}
    assert {"\t", "\n", "é", "×", "😀"} <= set(kept)


def test_headline_counts_what_did_not_pass(passed, failed):
    assert words.headline(passed) == (
        "All 2 artifacts agree with the unfused PyTorch model in float64, ema weights."
    )
    assert words.headline(failed).startswith("1 of 3 failed, 1 of 3 not run, held against")


def test_top1_names_near_ties(sample):
    check = sample.passing("onnx", "model.onnx")
    assert words.top1_text(check) == "4 of 4 rows agree, 2 near-ties not counted"


def test_the_gate_is_read_from_the_words_that_verification_uses():
    from slide_deploy.types import Precision, Verdict
    from slide_deploy.verification.judge import VerificationPolicy, _gate
    from slide_deploy.verification.record import Check

    for precision, multiple in ((Precision.FLOAT32, 10.0), (Precision.FLOAT16, None)):
        gate = _gate(precision, VerificationPolicy())
        check = Check("onnx", "a.onnx", precision, Verdict.PASS, (), gate=gate)
        assert words.gate_multiple(check) == multiple
