"""The table of targets at the widths that terminals have."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from rich.console import Console

from slide_deploy.report.targets import targets_table


def printed(width: int) -> str:
    console = Console(width=width, file=StringIO(), legacy_windows=False)
    with console.capture() as captured:
        console.print(targets_table(width))
    return captured.get()


@pytest.mark.parametrize("width", [80, 120, 160])
@pytest.mark.parametrize("missing", [(), ("torch", "coremltools", "onnxscript")])
def test_no_word_is_broken(
    width: int, missing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def words(text: str) -> set[str]:
        return set(re.split(r"[\s│┃─━┏┓┗┛┡┩┳┻╇┴└┘├┤┼]+", text))

    monkeypatch.setattr("slide_deploy.registry.missing_packages", lambda packages: missing)
    text = printed(width)
    assert max(map(len, text.splitlines())) <= width
    assert words(text) <= words(printed(1000))
    assert "run here" in text
