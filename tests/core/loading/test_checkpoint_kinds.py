"""Every kind of checkpoint that docs/checkpoints.md lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkpoint_cases import AVERAGED, CASES, MODEL, PAGE, Case, outcome, page


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind} {dict(case.options)}")
def test_a_kind_of_checkpoint(tmp_path: Path, case: Case) -> None:
    found, model = outcome(case, tmp_path)
    assert case.words in found
    assert (model is not None) == bool(case.weights), found
    if model is not None and case.weights != "fused":
        assert model.source.weights == case.weights
        expected = {"model": MODEL, "ema": AVERAGED}[case.weights]()
        loaded = model.module.state_dict()
        spare = ("norm.", "head.") if case.options.get("features") else ()
        wrong = [
            k for k, v in loaded.items() if not k.startswith(spare) and not v.equal(expected[k])
        ]
        assert wrong == []


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make checkpoint-kinds`"
