"""What the interpreter did in the running test, as the parts of the harness tell it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from slide_deploy.errors import ArtifactError
from slide_deploy.validators._mil import Unsupported

__all__ = ["EVENTS", "Event", "Kind", "told"]


class Kind(StrEnum):
    """What happened."""

    PREDICTED = "predicted"
    REFUSED = "refused"
    UNSUPPORTED = "unsupported"
    CRASHED = "crashed"
    NOT_A_PROGRAM = "not a program"
    RULE = "rule"
    OPERATION = "operation"
    ROUNDED = "rounded"
    OFF = "off"
    EXPECTED_FAILURE = "expected failure"


@dataclass(frozen=True)
class Event:
    """One thing that happened, and a message or a name."""

    kind: Kind
    text: str = ""


EVENTS: list[Event] = []  # of the running test; the plugin empties it


@contextmanager
def told() -> Iterator[None]:
    """What the interpreter raises becomes an event, and a RuntimeError as Core ML's errors are."""
    try:
        yield
    except Unsupported as error:
        EVENTS.append(Event(Kind.UNSUPPORTED, error.message))
        raise RuntimeError(error.message) from error
    except ArtifactError as error:
        EVENTS.append(Event(Kind.REFUSED, error.message))
        raise RuntimeError(error.message) from error
    except Exception as error:
        EVENTS.append(Event(Kind.CRASHED, f"{type(error).__name__}: {error}"))
        raise
