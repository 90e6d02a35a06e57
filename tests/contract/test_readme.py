"""The README shows the output of a real run, and its commands can be pasted."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
# Rounding depends on the processor: errors and ratios are compared by magnitude elsewhere.
EXACT = ("target", "file", "precision", "operators", "runtime", "verdict")


def rows(text: str) -> list[dict[str, str]]:
    """The rows of the first table of a report, by column."""
    lines = [line.strip() for line in text.splitlines()]
    (head,) = [line for line in lines if line.startswith("┃")][:1]
    names = [cell.strip() for cell in head.strip("┃").split("┃")]
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if "│" in line]
    return [dict(zip(names, row, strict=True)) for row in cells]


@pytest.mark.slow
def test_the_readme_shows_a_real_run(
    run_cli: Callable[..., Any], in_tmp: Path, default_lowerings: None
) -> None:
    model = ROOT / "examples" / "digits" / "slide_swin_digits.pth"
    done = run_cli("export", "--target", "all", model)
    assert done.code == 0, done.err
    shown, printed = rows((ROOT / "README.md").read_text(encoding="utf-8")), rows(done.out)
    assert [row.keys() for row in shown] == [row.keys() for row in printed]
    for column in EXACT:
        assert [row[column] for row in shown] == [row[column] for row in printed], column


def test_no_page_installs_from_an_index_what_is_on_none() -> None:
    pages = (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
    command = re.compile("pip install ['\"]?slide-deploy")
    assert [page.name for page in pages if command.search(page.read_text(encoding="utf-8"))] == []
