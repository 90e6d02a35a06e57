from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from slide_deploy.parity.gates import GateKind
from slide_deploy.quantization.search import Search, Trial
from slide_deploy.report.chart import dot_plot
from slide_deploy.report.html import render

VOID = {"wbr", "meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Text and tags of a page; fails where tags do not pair up."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "title"):
            self.text += data


@pytest.mark.parametrize("report", ["passed", "failed", "hostile"])
def test_the_page_asks_for_nothing_outside_itself(report, request):
    page = Page(render(request.getfixturevalue(report)))
    assert not {"script", "iframe", "object", "embed", "img", "form", "base"} & {
        tag for tag, _ in page.tags
    }
    addresses = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href")
    ]
    assert addresses == ["data:,"]
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_no_style_loads_anything(failed):
    assert not re.search(r"url\(|@import", render(failed))


def test_verdict_numbers_and_provenance_are_on_it(failed):
    text = Page(render(failed)).text
    for part in (
        "Failed",
        "1 of 3 failed, 1 of 3 not run",
        "8750000 times the float32 noise",
        "layers.1.blocks.0.mlp",
        "8.75e+06",
        "onnx::MatMul",
        "another 4.5 FAILED",
        "570.5 kB",
        "native: the vendor's own runtime",
        "4 of 4 rows agree, 2 near-ties not counted",
        "ab" * 32,
        "cd" * 32,
        "slide-deploy export -t all model.pth",
        "which is not installed",
        "gate 10×",
    ):
        assert part in text, part


def test_hostile_text_stays_text(hostile):
    source = render(hostile)
    source.encode()
    text = Page(source).text
    assert "<img src=x onerror=alert(2)>" in text
    assert "</pre><script>" in text
    assert "<b>Op</b>" in text
    assert "<s>block</s>" in text


def test_a_report_of_nothing_is_a_page(sample):
    assert "Nothing was checked." in Page(render(sample.report())).text


def test_the_gate_is_drawn_only_where_it_judged(sample):
    passing = sample.passing("onnx", "a.onnx")
    (gate,) = passing.gates
    tolerance = replace(gate, kind=GateKind.TOLERANCE, limit=0.0, measured=-1e-5, unit="")
    own = replace(passing, gates=(tolerance,))
    source = render(sample.report(own))
    assert "gate 10×" not in source
    assert "These artifacts have other gates" in source
    both = render(sample.report(own, sample.passing("coreml", "a.mlpackage")))
    assert "gate 10×" in both
    assert "except for artifacts with other gates" in both


def test_float16_has_a_chart_in_decibels_against_its_own_limit(sample):
    source = render(sample.report(sample.float16("onnx", "a.onnx")))
    text = Page(source).text
    assert "gate 10 dB" in text
    assert "onnx, normal: 2.5 dB" in source
    assert "2.5 ≤ 10 dB" in text
    assert "gate 10×" not in text
    assert "3333" not in source
    assert text.count("2.5 ≤ 10 dB") == 4  # in the table, among the gates, and on both probes
    assert {">0<", ">2<", ">10<"} <= set(re.findall(">[−0-9]+<", source))
    assert "mil::add sum_3" in text


def test_a_search_is_told_and_drawn_the_largest_gain_first(sample):
    trials = (Trial((), 20.0), Trial(("a",), 21.0), Trial(("b",), 29.0))
    found = Search(28.0, ("a", "b"), ("b",), 29.0, trials)
    source = render(sample.report(replace(sample.passing("onnx", "a.onnx"), search=found)))
    told = "1 of 2 parts stay in float for 28 dB (29.0 dB; 20.0 dB without): b"
    assert Page(source).text.count(told) == 2
    assert source.index("onnx, b: 9.0 dB") < source.index("onnx, a: 1.0 dB")
    of_kind = replace(found, kept=("linear layers",), kinds=("linear layers", "convolutions"))
    check = replace(sample.passing("onnx", "a.onnx"), search=of_kind)
    assert "linear layers stay in float for 28 dB (29.0 dB; 20.0 dB without)" in render(
        sample.report(check)
    )


def test_a_loss_that_is_not_finite_is_drawn(sample):
    for loss in (math.inf, math.nan, -math.inf, -9e9):
        source = render(sample.report(sample.float16("onnx", "a.onnx", loss)))
        assert "onnx, normal: not finite" in source
        assert "nan" not in re.findall(r'transform="([^"]*)"', source)


def test_values_that_a_log_axis_cannot_hold_are_drawn_at_its_edges(sample):
    check = sample.passing("onnx", "a.onnx")
    first, second = check.comparisons
    odd = (replace(first, noise_ratio=math.nan), replace(second, noise_ratio=0.0))
    source = render(sample.report(replace(check, comparisons=odd)))
    assert "onnx, normal: not finite × noise" in source
    assert "onnx, zeros: 0.0 × noise" in source
    assert "nan" not in re.findall(r'transform="([^"]*)"', source)


def test_a_chart_of_no_rows_is_still_one():
    assert dot_plot("empty", [], [], gate=None).startswith("<svg")


def test_the_axis_is_in_decibels_however_large_the_loss(sample):
    for loss in (-50.0, 0.0, 30.0, 400.0, 5000.0):
        source = render(sample.report(sample.float16("onnx", "a.onnx", loss)))
        assert 4 <= len(re.findall('class="grid"', source)) <= 11


def test_the_verdict_of_an_artifact_stands_beside_its_target(failed):
    headers = re.findall('<th scope="col"[^>]*>([^<]*)', render(failed))
    assert headers[:3] == ["Target", "Verdict", "File"]


def test_operators_break_at_their_words(sample):
    check = replace(sample.passing("onnx", "a.onnx"), operators={"ai.onnx::LayerNormalization": 1})
    page = render(sample.report(check))
    assert "ai.<wbr>onnx::<wbr>Layer<wbr>Normalization" in page
    assert "overflow-wrap: anywhere" not in page.partition(".ops")[2].partition("}")[0]


def test_the_page_tells_the_date(passed):
    assert "2026-11-25 22:33 UTC" in Page(render(passed)).text
    assert " · " not in Page(render(replace(passed, date=""))).text


def test_file_names_break_at_their_words_and_show_no_markup(passed):
    page = render(passed)
    assert "&lt;wbr" not in page
    assert "<wbr>" in page
