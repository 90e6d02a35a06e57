"""Quantized artifacts are broken as intended, and each error is detected."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from benchmarks.mutation.analysis import detection_rate
from benchmarks.mutation.document import with_quantized
from benchmarks.mutation.outcome import Outcome, Route, Status
from benchmarks.mutation.plan import QUANTIZED
from benchmarks.mutation.quantized import BINARIES, PROGRAM, SOUND, STALE, break_quantized
from benchmarks.mutation.quantized_edits import EDITS, NoSite
from benchmarks.mutation.random_models import Draw, random_bench
from benchmarks.mutation.tables import quantized_rows
from slide_deploy import registry

pytestmark = pytest.mark.filterwarnings("ignore")

SWIN = Draw(1, "swin", "ordinary", 10, dynamic=False, lowering="auto")


@pytest.mark.parametrize(
    ("target", "precision"),
    [
        pytest.param(*pair, marks=() if pair == ("onnx", "w8a8") else pytest.mark.slow)
        for pair in QUANTIZED
    ],
)
def test_errors_are_detected_and_sound_artifacts_pass(
    target: str, precision: str, tmp_path: Path
) -> None:
    if missing := registry.missing_packages(registry.runtime(target).packages):
        pytest.skip(f"{', '.join(missing)} is not installed")
    own = random_bench(SWIN, tmp_path, registry.exporter(target).quantized_from)
    outcomes = break_quantized(own, target, precision, sites=1, seed=0)
    broken = [outcome for outcome in outcomes if outcome.kind != SOUND]
    assert [o.problem for o in outcomes if o.kind == SOUND] == ["", ""]
    assert detection_rate(broken) == 1
    assert len(broken) >= 7
    kinds = {outcome.kind for outcome in broken}
    assert (STALE in kinds) is (precision != "w8")
    assert kinds.issuperset(BINARIES) is bool(registry.runtime(target).compiled_problems)
    assert (PROGRAM in kinds) is (target == "ethos-u")


VALUES = {
    "a_quantized": np.arange(4, dtype=np.int8).reshape(2, 2),
    "a_scale": np.array([0.5, 1.0], np.float32),
    "a_axis": np.array(0),
    "b_quantized": np.arange(4, dtype=np.int8),
    "b_scale": np.array([2.0, 3.0], np.float32),
    "in_scale": np.array([0.1], np.float32),
    "in_zero_point": np.array([3], np.int8),
    "norm": np.ones(3, np.float32),
}


@pytest.mark.parametrize("kind", [kind for kind in EDITS if "bias" not in kind])
def test_each_edit_changes_what_it_says(kind: str) -> None:
    values = {name: value.copy() for name, value in VALUES.items()}
    assert EDITS[kind](values, random.Random(0))
    changed = {n for n, value in values.items() if not np.array_equal(value, VALUES[n])}
    names = {
        "one integer off by one": {"a_quantized", "b_quantized"},
        "zero point off by one": {"in_zero_point"},
        "scales along the other axis": {"a_axis"},
        "float tensor 5 % off": {"norm"},
        **{k: {"in_scale"} for k in EDITS if k.startswith("range")},
    }
    assert changed
    assert changed <= names.get(kind, {"a_scale", "b_scale"})


def test_what_an_artifact_lacks_is_not_broken() -> None:
    with pytest.raises(NoSite):
        EDITS["scale of a bias 5 % off"](dict(VALUES), random.Random(0))


def outcome(kind: str, status: Status, target: str = "coreml") -> Outcome:
    problem = "wrong" if status is Status.DETECTED else ""
    return Outcome("m", kind, "", "", "w8a8", target, Route.FILE, status, problem)


def test_the_section_of_the_document_alone_is_replaced() -> None:
    outcomes = [
        *(outcome("range", status) for status in (Status.DETECTED, Status.MISSED)),
        outcome("range", Status.INEFFECTIVE),
        outcome(SOUND, Status.INEFFECTIVE),
        outcome("zero point", Status.DETECTED, "onnx"),
    ]
    assert quantized_rows(outcomes).cells == [
        ["range", "1/2", "–"],
        ["zero point", "–", "1/1"],
        ["all", "1/2", "1/1"],
        ["sound artifacts that failed", "0/1", "–"],
    ]
    text = "before\n## Quantized precisions\n\nold\n\n## Clean exports\nafter"
    new = with_quantized(text, outcomes)
    assert new.startswith("before\n## Quantized precisions\n\nErrors in")
    assert new.endswith("\n\n## Clean exports\nafter")
    assert "old" not in new


def test_columns_of_targets_that_were_not_run_stay() -> None:
    first = [outcome("range", Status.DETECTED), outcome(SOUND, Status.INEFFECTIVE)]
    text = with_quantized("## Quantized precisions\n\n## Clean exports\n", first)
    second = [
        outcome("range", Status.MISSED, "qnn"),
        outcome("binary", Status.DETECTED, "qnn"),
        outcome(SOUND, Status.INEFFECTIVE, "qnn"),
    ]
    wanted = [
        "| mutation | Core ML w8a8 | Hexagon w8a8 |",
        "| range | 1/1 | 0/1 |",
        "| binary | – | 1/1 |",
        "| all | 1/1 | 1/2 |",
        "| sound artifacts that failed | 0/1 | 0/1 |",
    ]
    for _ in range(2):  # again: columns are replaced
        text = with_quantized(text, second)
        lines = [line for line in text.splitlines() if line.startswith("| ")]
        assert [line for line in lines if "---" not in line] == wanted
