"""The comparison with an earlier export, in every kind of report."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from slide_deploy.report import html, markdown
from slide_deploy.report.terminal import report_table
from slide_deploy.utils.records import rebuild, to_text
from slide_deploy.verification.record import Report
from slide_deploy.verification.replay import Likeness, Replay, ReplayedArtifact, VersionChange

REPLAY = Replay(
    manifest_sha256="a" * 64,
    artifacts=(
        ReplayedArtifact("onnx", "model.onnx", Likeness.SAME_BYTES, "b" * 64, "b" * 64),
        ReplayedArtifact(
            *("openvino", "model_openvino_model", Likeness.OTHER_NUMBERS, "c" * 64, "d" * 64),
            files=("model.xml",),
            max_abs_difference=2e-6,
        ),
        ReplayedArtifact(
            *("coreml", "<b>|model", Likeness.NOT_COMPARED, "e" * 64, "f" * 64),
            reason="the earlier artifact is not beside its manifest",
        ),
    ),
    versions=(VersionChange("openvino", "2025.2", "2026.4"), VersionChange("onnx", "", "1.18")),
)


def in_terminal(report: Report) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(report_table(report, width=200))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("render", [in_terminal, markdown.render, html.render])
def test_every_report_names_the_differences(render, passed: Report) -> None:
    text = render(replace(passed, replay=REPLAY))
    for told in (
        *("same bytes", "other numbers", "other bytes, numbers not compared"),
        *("cccccccccccc", "dddddddddddd", "2.0e-06"),
        "openvino: 2025.2 then, 2026.4 now",
        "onnx: not installed then, 1.18 now",
        "not beside its manifest",
    ):
        assert told in text, told
    assert "model.xml" in text.replace("\\_", "_")
    assert "<b>|" not in text or render is in_terminal
    assert "earlier export" not in render(passed).lower()


def test_the_same_versions_are_told() -> None:
    from slide_deploy.report.replay import replay_lines

    (line,) = replay_lines(replace(REPLAY, artifacts=(), versions=()))
    assert "the versions of then" in line


def test_it_comes_back_as_it_went() -> None:
    import json

    assert rebuild(Replay, json.loads(to_text(REPLAY))) == REPLAY
