"""Predictions of what may run on the Neural Engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coremltools.proto import Model_pb2

from slide_deploy.coreml import BlockResidency, FunctionResidency, Place, residency
from slide_deploy.coreml.neural_engine import WITH, WITHOUT
from tests.targets.mil.conftest import mb

Write = Callable[..., Path]
X = np.zeros((1, 2, 3, 4), np.float32)


def predicted(package: Path) -> FunctionResidency:
    [found] = residency(package).functions
    return found


def in_half(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A program that computes `change` in float16 between two casts."""
    return lambda x: mb.cast(x=change(mb.cast(x=x, dtype="fp16")), dtype="fp32")


def place_of(found: FunctionResidency, operation: str) -> tuple[Place, str]:
    [own] = [own for own in found.placements if own.operation == operation]
    return own.place, own.reason


def test_a_program_in_float32_stays_off_the_neural_engine(write: Write) -> None:
    found = predicted(write(lambda x: mb.softmax(x=mb.relu(x=x)), [X], 7))
    assert place_of(found, "softmax") == (Place.ELSEWHERE, "the type float32")
    assert found.count(Place.NEURAL_ENGINE) == 0
    assert [segment.operations for segment in found.segments] == [2]


def test_float16_between_casts(write: Write) -> None:
    found = predicted(write(in_half(lambda x: mb.softmax(x=mb.relu(x=x))), [X], 7))
    assert place_of(found, "softmax") == (Place.NEURAL_ENGINE, "")
    assert place_of(found, "cast") == (Place.ELSEWHERE, "the type float32")
    places = [segment.place for segment in found.segments]
    assert places == [Place.ELSEWHERE, Place.NEURAL_ENGINE, Place.ELSEWHERE]
    assert found.switches == 2


@pytest.mark.parametrize(
    ("change", "operation", "expected"),
    [
        (lambda x: mb.gather(x=x, indices=[0], axis=1), "gather", (Place.ELSEWHERE, "the oper")),
        (lambda x: mb.erf(x=x), "erf", (Place.UNKNOWN, "no source")),
        (
            lambda x: mb.tile(x=x, reps=[1, 1, 1, 5000]),
            "tile",
            (Place.UNKNOWN, "a dimension of 20"),
        ),
        (
            lambda x: mb.tile(x=x, reps=[1, 1, 1, 20000]),
            "tile",
            (Place.ELSEWHERE, "a dimension of 80000"),
        ),
    ],
)
def test_operations_and_shapes_that_do_not_fit(
    write: Write, change: Any, operation: str, expected: tuple[Place, str]
) -> None:
    place, reason = place_of(predicted(write(in_half(change), [X], 7)), operation)
    assert place is expected[0]
    assert reason.startswith(expected[1])


def test_an_unknown_place_is_no_change_of_the_processor(write: Write) -> None:
    found = predicted(write(in_half(lambda x: mb.relu(x=mb.erf(x=mb.relu(x=x)))), [X], 7))
    assert found.switches == 2
    assert found.count(Place.UNKNOWN) == 1


def test_a_record_of_blocks_is_used_where_it_fits(write: Write) -> None:
    package = write(in_half(lambda x: mb.softmax(x=mb.relu(x=x))), [X], 7)
    assert predicted(package).blocks == ()
    for runs, expected in (
        ([["", 1], ["head", 3]], [BlockResidency("", 0, 1, 0), BlockResidency("head", 2, 1, 0)]),
        ([["head", 3]], []),
        ([["head", 10**12]], []),
        ("no list", []),
    ):
        change_metadata(package, "blocks", json.dumps(runs))
        assert list(predicted(package).blocks) == expected


def change_metadata(package: Path, key: str, value: str) -> None:
    (file,) = package.rglob("*.mlmodel")
    spec = Model_pb2.Model.FromString(file.read_bytes())
    spec.description.metadata.userDefined[key] = value
    file.write_bytes(spec.SerializeToString())


def test_every_fact_has_a_source() -> None:
    assert not WITH.keys() & WITHOUT.keys()
    for source in (*WITH.values(), *WITHOUT.values()):
        assert source.url.startswith("https://")
        assert source.who
        assert source.says
