"""The table of a report at several widths of the terminal."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from rich.console import Console

from slide_deploy.report.terminal import make_console, report_table


def printed(report, width: int, **options) -> str:
    console = Console(width=width, file=StringIO(), legacy_windows=False)
    with console.capture() as captured:
        console.print(report_table(report, width=width, **options))
    return captured.get()


def rows(text: str) -> list[list[str]]:
    """Headings and cells of the table."""
    lines = [re.split("[│┃]", line)[1:-1] for line in text.splitlines() if line[:1] in ("│", "┃")]
    return [[cell.strip() for cell in line] for line in lines]


@pytest.mark.parametrize("width", [60, 80, 120, 160])
def test_target_measure_and_verdict_are_whole_at_any_width(failed, width):
    text = printed(failed, width)
    assert max(map(len, text.splitlines())) <= width
    heading, *table = rows(text)
    assert [heading[0], heading[-1]] == ["target", "verdict"]
    assert "worst ≤ limit" in heading
    assert [(row[0], row[-1]) for row in table] == [
        ("onnx", "passed"),
        ("torchscript", "FAILED"),
        ("openvino", "not run"),
    ]


@pytest.mark.parametrize("width", [60, 80, 120, 160])
def test_no_word_is_broken(failed, width):
    def words(text: str) -> set[str]:
        return set(re.split(r"[\s:│┃─━┏┓┗┛┡┩┳┻╇┴└┘├┤┼]+", text))

    assert words(printed(failed, width)) <= words(printed(failed, 1000))


def test_the_more_room_the_more_columns(passed):
    shown = [rows(printed(passed, width))[0] for width in (50, 60, 80, 120, 160)]
    assert "max error" in shown[1]
    assert [len(columns) for columns in shown] == sorted(len(columns) for columns in shown)
    assert len(shown[-1]) == 10


def test_a_file_without_a_column_is_named_below(passed):
    assert "file" not in rows(printed(passed, 60))[0]
    assert "coreml: model.mlpackage" in printed(passed, 60)
    assert "coreml: model.mlpackage" not in printed(passed, 160)


def test_many_problems_are_cut_and_the_rest_is_where_it_says(sample):
    from dataclasses import replace
    from pathlib import Path

    problems = tuple(f"problem {number}" for number in range(9))
    report = sample.report(replace(sample.not_run("onnx", "a.onnx"), problems=problems))
    short = printed(report, 160)
    assert "… and 5 more; --verbose shows all of them" in short
    assert "problem 8" not in short
    assert "report.json" not in short
    assert "more; out/report.json has all of them" in printed(report, 160, saved=Path("out"))
    assert "problem 8" in printed(report, 160, verbose=True)


def test_verbose_shows_every_gate(sample):
    report = sample.report(sample.float16("coreml", "a.mlpackage"))
    gates = [gate for check in report.checks for gate in check.gates]
    text = printed(report, 200, verbose=True)
    assert gates
    assert sum(line.startswith("coreml: ") for line in text.splitlines()) >= len(gates)


def test_a_file_or_pipe_is_160_columns_wide(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("sys.stdout", StringIO())
    assert make_console().width == 160
