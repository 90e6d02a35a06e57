"""The conformance harness: a test's events become the right outcome, and a worse one is seen."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from benchmarks.conformance.document import document, table, table_in, worse
from benchmarks.conformance.events import EVENTS, Event, Kind, told
from benchmarks.conformance.outcome import Outcome, Result, judged
from benchmarks.conformance.widening import in_float32
from slide_deploy.errors import ArtifactError
from slide_deploy.validators._mil import (
    Constant,
    Feature,
    Operation,
    Program,
    TensorType,
    Unsupported,
    Value,
    evaluate,
)

TEST = "coremltools/converters/mil/mil/ops/tests/iOS14/test_linear.py::TestMatMul::test_stress[1]"
PREDICTED = Event(Kind.PREDICTED)


@pytest.mark.parametrize(
    ("status", "events", "error", "outcome"),
    [
        ("passed", [PREDICTED], "", Outcome.AGREED),
        ("passed", [PREDICTED, Event(Kind.ROUNDED, "by 1e-3")], "", Outcome.ROUNDING),
        ("passed", [PREDICTED, Event(Kind.OFF, "by 1e-2")], "", Outcome.WRONG),
        ("passed", [], "", Outcome.NO_NUMBERS),
        ("skipped", [], "Skipped", Outcome.SKIPPED),
        ("failed", [PREDICTED], "AssertionError", Outcome.WRONG),
        ("failed", [Event(Kind.REFUSED, "damaged")], "RuntimeError", Outcome.REFUSED),
        ("failed", [Event(Kind.UNSUPPORTED, "no")], "RuntimeError", Outcome.UNSUPPORTED),
        ("failed", [PREDICTED, Event(Kind.CRASHED, "KeyError")], "KeyError", Outcome.CRASHED),
        ("failed", [], "ValueError", Outcome.NOT_REACHED),
        ("failed", [Event(Kind.EXPECTED_FAILURE), PREDICTED], "AssertionError", Outcome.SKIPPED),
    ],
)
def test_events_become_an_outcome(
    status: str, events: list[Event], error: str, outcome: Outcome
) -> None:
    assert judged("MIL operations", TEST, status, events, error, "why").outcome is outcome


RNN = "TestRNN::test_builder_to_backend_smoke[precision='fp16']"


@pytest.mark.parametrize(
    ("test", "off", "outcome"),
    [
        (RNN, "off by 2e-03 of the largest value", Outcome.EXPLAINED),
        (RNN, "off by 1e-02 of the largest value", Outcome.WRONG),
        (RNN.replace("RNN", "GRU"), "off by 2e-03 of the largest value", Outcome.WRONG),
    ],
)
def test_an_explanation_is_for_one_test_and_one_error(
    test: str, off: str, outcome: Outcome
) -> None:
    events = [PREDICTED, Event(Kind.OFF, off)]
    path = "coremltools/converters/mil/mil/ops/tests/iOS17/test_recurrent.py::"
    assert judged("MIL operations", path + test, "passed", events, "", "").outcome is outcome


def test_a_refusal_that_is_missing_is_wrong() -> None:
    found = judged("MIL operations", TEST, "failed", [], "Failed", "DID NOT RAISE RuntimeError")
    assert found.outcome is Outcome.WRONG


@pytest.mark.parametrize(
    ("error", "kind", "raised"),
    [
        (ArtifactError("damaged"), Kind.REFUSED, RuntimeError),
        (Unsupported("no formula"), Kind.UNSUPPORTED, RuntimeError),
        (KeyError("x"), Kind.CRASHED, KeyError),
    ],
)
def test_what_the_interpreter_raises_is_told(
    error: Exception, kind: Kind, raised: type[Exception]
) -> None:
    EVENTS.clear()
    with pytest.raises(raised), told():
        raise error
    assert [event.kind for event in EVENTS] == [kind]


def test_a_page_is_read_back_and_a_worse_outcome_is_named() -> None:
    agreed = Result("MIL operations", TEST, Outcome.AGREED, rules=("the last stays",))
    skipped = Result("torch frontend", TEST, Outcome.SKIPPED)
    page = document([agreed, agreed, skipped], "2 of 2", 2, 60.0)
    before = table_in(page)
    assert before == {"iOS14/test_linear.py": Counter({"agreed": 2, "skipped": 1})}
    assert "| the last stays | 2 |" in page
    assert worse(before, table([agreed, agreed, skipped])) == []
    wrong = Result("MIL operations", TEST, Outcome.WRONG, "off by 0.1")
    assert worse(before, table([agreed, wrong])) == [
        "iOS14/test_linear.py: 1 fewer agree",
        "iOS14/test_linear.py: 1 more wrong",
    ]


def test_a_program_in_float32_is_not_rounded() -> None:
    half = TensorType("fp16", (2,))
    third = Constant(half, np.array([1 / 3, 1 / 3], np.float16))
    program = Program(
        inputs=(Feature("x", "fp16", (2,)),),
        outputs=(Feature("y", "fp16", (2,)),),
        arguments=(Value("x", half),),
        operations=(Operation("mul", {"x": ("x",), "y": (third,)}, (Value("y", half),), {}),),
        opset="CoreML6",
        spec_version=7,
        metadata={},
        description="",
    )
    x = np.array([3, 5], np.float16)
    exact = x.astype(np.float32) * third.data.astype(np.float32)
    wide = evaluate(in_float32(program), {"x": x.astype(np.float32)})["y"]
    np.testing.assert_array_equal(wide, exact)
    assert not np.array_equal(evaluate(program, {"x": x})["y"], exact)
