from __future__ import annotations

import re

from markdown_it import MarkdownIt

from slide_deploy.report.markdown import render


def as_html(text: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(text)


def test_the_verdict_comes_first_and_details_are_folded(failed):
    text = render(failed)
    assert text.startswith("## ❌ model: FAILED\n\n1 of 3 failed, 1 of 3 not run")
    visible = re.sub(r"<details>.*?</details>", "", text, flags=re.S)
    assert "8750000 times" in visible
    assert "<code>layers.1.blocks.0.mlp</code>" in visible
    assert "SHA-256" not in visible
    assert "slide-deploy export -t all model.pth" in text


def test_the_first_bad_block_is_named_before_the_table(failed):
    text = render(failed)
    assert (
        text.index("layers.1.blocks.0.mlp") < text.index("8750000 times") < text.index("| target")
    )


def test_each_row_shows_what_it_was_judged_by(sample):
    text = render(sample.report(sample.float16("onnx", "a.onnx")))
    assert "| normal | logits | 1.3e-03 | 4.0e-07 | 2.5 ≤ 10 dB | 128 dB |" in text
    assert "3333" not in text


def test_it_tells_the_date(passed):
    assert "Date: 2026-11-25 22:33 UTC." in render(passed)


def test_a_pass_has_no_problems_section(passed):
    text = render(passed)
    assert text.startswith("## ✅ model: passed\n")
    assert "Problems" not in text


def test_it_renders_as_tables_with_a_row_per_artifact(failed):
    html = as_html(render(failed))
    first = html[html.index("<table>") : html.index("</table>")]
    assert first.count("<tr>") == 1 + len(failed.checks)
    assert html.count("<details>") == html.count("</details>") == 3


def test_hostile_text_stays_text(hostile):
    text = render(hostile)
    text.encode()
    html = as_html(text)
    assert "<script" not in html.replace("&lt;script", "")
    for tag in ("<img", "<b>", "<i>", "<u>", "<s>", 'href="javascript', "<h1"):
        assert tag not in html
    table = html[html.index("<table>") : html.index("</table>")]
    assert table.count("<tr>") == 2
    assert len(re.findall("<td", table)) == 10
