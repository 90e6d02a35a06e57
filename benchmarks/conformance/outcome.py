"""What became of one of Apple's tests, and why."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from benchmarks.conformance.events import Event, Kind
from benchmarks.conformance.explained import explanation

__all__ = ["Outcome", "Result", "judged"]


class Outcome(StrEnum):
    """What became of a test. The last three do not apply to ML programs on a CPU."""

    AGREED = "agreed"
    ROUNDING = "rounding"
    EXPLAINED = "explained"
    WRONG = "wrong"
    REFUSED = "refused"
    UNSUPPORTED = "unsupported"
    CRASHED = "crashed"
    NO_NUMBERS = "no numbers"
    NOT_REACHED = "not reached"
    SKIPPED = "skipped"

    @property
    def passed(self) -> bool:
        """Whether the interpreter's numbers are those of Apple's test."""
        return self in (Outcome.AGREED, Outcome.ROUNDING)

    @property
    def applies(self) -> bool:
        """Whether Apple's test compares what an ML program computes on a CPU."""
        return self not in (Outcome.NO_NUMBERS, Outcome.NOT_REACHED, Outcome.SKIPPED)


@dataclass(frozen=True)
class Result:
    """One test of `suite`, and what its outcome rests on."""

    suite: str
    test: str
    outcome: Outcome
    reason: str = ""
    rules: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The test file, from the folder that says what it is about."""
        return "/".join(self.test.partition("::")[0].split("/")[-2:])

    @property
    def function(self) -> str:
        """The test function, without its parameters."""
        return self.test.partition("::")[2].partition("[")[0]


def judged(
    suite: str, test: str, status: str, events: Sequence[Event], error: str, message: str
) -> Result:
    """The result of a test that pytest found to be `status`, with the exception that ended it."""
    outcome, reason = _outcome(status, events, error, message)
    # A test that Apple's tolerance lets pass ends without a message.
    why = explanation(test, message or reason)
    if why and outcome.applies and not outcome.passed:
        outcome, reason = Outcome.EXPLAINED, why
    return Result(
        suite,
        test,
        outcome,
        reason,
        tuple(sorted({e.text for e in events if e.kind == Kind.RULE})),
        tuple(sorted({e.text for e in events if e.kind == Kind.OPERATION})),
    )


def _outcome(status: str, events: Sequence[Event], error: str, message: str) -> tuple[Outcome, str]:
    found = {event.kind: event.text for event in reversed(events)}
    predicted = Kind.PREDICTED in found
    if status == "skipped":
        return Outcome.SKIPPED, _general(message)
    if status == "passed" and Kind.OFF in found:
        return Outcome.WRONG, found[Kind.OFF]
    if status == "passed" and Kind.ROUNDED in found:
        return Outcome.ROUNDING, found[Kind.ROUNDED]
    if status == "passed":
        return (Outcome.AGREED if predicted else Outcome.NO_NUMBERS), ""
    if Kind.CRASHED in found:
        return Outcome.CRASHED, found[Kind.CRASHED]
    if Kind.EXPECTED_FAILURE in found:
        return Outcome.SKIPPED, f"fails in Core ML too: {_general(found[Kind.EXPECTED_FAILURE])}"
    for kind, outcome in _PROBLEMS.items():
        if kind in found:
            return outcome, _general(found[kind])
    if "DID NOT RAISE" in message:
        return Outcome.WRONG, "not refused, though Core ML does"
    if not predicted:
        return Outcome.NOT_REACHED, f"{error}: {_general(message)}"
    return Outcome.WRONG, f"{error}: {_general(message)}"


_PROBLEMS = {
    Kind.UNSUPPORTED: Outcome.UNSUPPORTED,
    Kind.REFUSED: Outcome.REFUSED,
    Kind.NOT_A_PROGRAM: Outcome.NOT_REACHED,
}


def _general(message: str) -> str:
    """The first line of a message, without the names and numbers of one case."""
    line = next((line for line in message.splitlines() if line.strip()), "")
    line = re.sub(r"^(\w+) \S+?: ", r"\1: ", line)
    line = re.sub(r"\([\d, ]*\)|\[[\d, -]*\]", "(…)", line)
    return re.sub(r"(?<![\w.])-?\d[\d.e+-]*", "n", line)[:160]
