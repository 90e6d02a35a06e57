"""The counts in docs/families.md are those of the code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_the_table_of_the_docs_is_what_the_script_prints() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "family_counts.py"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() in (ROOT / "docs" / "families.md").read_text()
