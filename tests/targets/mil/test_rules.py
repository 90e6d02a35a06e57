"""Rules that only Apple's tests determine are applied and noted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb

from slide_deploy.validators._mil import evaluate, read_package

DATA = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
UPDATES = np.array([[5, 6, 7], [8, 9, 10]], np.float32)
ROWS = np.array([[1, 0, 1], [1, 1, 0]], np.int32)


def noted(
    write: Callable[..., Path], build: Callable[..., Any], inputs: tuple[np.ndarray, ...]
) -> tuple[list[Any], list[str]]:
    """The only output as nested lists, and the rules it rests on."""
    program, notes = read_package(write(build, inputs)), list[str]()
    feeds = {v.name: x for v, x in zip(program.arguments, inputs, strict=True)}
    (found,) = evaluate(program, feeds, note=notes.append).values()
    return found.tolist(), notes


@pytest.mark.parametrize(
    ("build", "inputs", "expected", "note"),
    [
        (
            lambda d, u: mb.scatter_along_axis(
                data=d, indices=ROWS, updates=u, axis=0, mode="update"
            ),
            (DATA, UPDATES),
            [[1, 6, 10], [8, 9, 7]],
            "the last stays",
        ),
        (
            lambda d, u: mb.scatter(data=d, indices=[1, 1], updates=u, axis=0, mode="update"),
            (DATA, UPDATES),
            [[1, 2, 3], [8, 9, 10]],
            "the last stays",
        ),
        (
            lambda x: mb.upsample_nearest_neighbor(x=x, scale_factor_width=0.67),
            (DATA[None, None],),
            [[[[1, 2], [4, 5]]]],
            "floor(i * in / out)",
        ),
        (
            lambda x, y: mb.real_div(x=x, y=y),
            (np.array([10, 60, -40], np.int32), np.array([11, 16, 15], np.int32)),
            [0, 3, -2],
            "towards zero",
        ),
        (
            lambda x: mb.resize_nearest_neighbor(
                x=x, target_size_height=3, target_size_width=np.int32(3)
            ),
            (DATA[None, None],),
            [[[[1, 2, 3], [4, 5, 6], [4, 5, 6]]]],
            "half pixels and rounding",
        ),
        (
            lambda x, g: mb.resample(
                x=x,
                coordinates=g,
                sampling_mode="nearest",
                padding_mode="border",
                padding_value=np.float32(0),
                coordinates_mode="unnormalized",
                align_corners=True,
            ),
            (DATA[None, None], np.array([[[[0.5, 0.5]]]], np.float32)),
            [[[[5]]]],
            "the greater position",
        ),
        (
            lambda x, n: mb.tile(x=x, reps=n),
            (DATA, np.array([1, 0], np.int32)),
            [[], []],
            "repeated 0 times is empty",
        ),
    ],
    ids=[
        *("scatter_along_axis", "scatter", "upsample_nearest_neighbor", "real_div"),
        *("resize_nearest_neighbor", "resample", "tile"),
    ],
)
def test_a_rule_of_apples_tests_is_followed_and_noted(
    write: Callable[..., Path],
    build: Callable[..., Any],
    inputs: tuple[np.ndarray, ...],
    expected: list[Any],
    note: str,
) -> None:
    found, notes = noted(write, build, inputs)
    assert found == expected
    assert len(notes) == 1
    assert note in notes[0]


def test_what_needs_no_rule_is_not_noted(write: Callable[..., Path]) -> None:
    def build(d: Any, u: Any) -> Any:
        scattered = mb.scatter(data=d, indices=[1, 0], updates=u, axis=0, mode="update")
        return mb.real_div(x=scattered, y=d)

    assert noted(write, build, (DATA, UPDATES))[1] == []
