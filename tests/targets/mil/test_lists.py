"""Lists of tensors: what is read is what was written, and zero elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb

from slide_deploy.errors import ArtifactError
from slide_deploy.validators._mil import evaluate, read_package, violations

Run = Callable[..., list[np.ndarray]]
ROWS = np.array([[5, 6], [7, 8]], np.float32)
A, B = np.array([1, 3], np.float32), np.array([2, 4], np.float32)


def new_list(length: int = 2) -> Any:
    return mb.make_list(init_length=length, elem_shape=(2,))


def test_a_list_grows_to_what_is_written(run: Run) -> None:
    def build(a: Any, b: Any) -> Any:
        ls = mb.list_write(ls=new_list(), index=0, value=a)
        ls = mb.list_write(ls=ls, index=4, value=b)
        ls = mb.list_scatter(ls=ls, indices=[2, 1], value=ROWS)
        return mb.list_read(ls=ls, index=0), mb.list_gather(ls=ls, indices=[4, 2, 1, 3])

    read, gathered = run(build, [A, B])
    assert read.tolist() == [1, 3]
    assert gathered.tolist() == [[2, 4], [5, 6], [7, 8], [0, 0]]


def test_a_loop_appends_to_a_list(write: Callable[..., Path]) -> None:
    def body(i: Any, ls: Any, a: Any) -> Any:
        new = mb.mul(x=a, y=mb.cast(x=i, dtype="fp32"))
        return mb.add(x=i, y=1), mb.list_write(ls=ls, index=i, value=new), a

    def build(a: Any) -> Any:
        below_three = lambda i, ls, a: mb.less(x=i, y=3)  # noqa: E731
        _, ls, _ = mb.while_loop(_cond=below_three, _body=body, loop_vars=(0, new_list(1), a))
        every = mb.range_1d(start=0, end=mb.list_length(ls=ls), step=1)
        return mb.list_gather(ls=ls, indices=every)

    program, notes = read_package(write(build, [A])), list[str]()
    (found,) = evaluate(program, {program.inputs[0].name: A}, note=notes.append).values()
    assert found.tolist() == [[0, 0], [1, 3], [2, 6]]
    assert ["were not written are zero" in line for line in notes] == [True]
    assert violations(program) == []


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda a: mb.list_read(ls=new_list(), index=2), "outside 0..1"),
        (lambda a: mb.list_gather(ls=new_list(), indices=[-1]), "outside 0..1"),
        (
            lambda a: mb.list_read(
                ls=mb.list_scatter(ls=new_list(), indices=[1, 1], value=ROWS),
                index=0,
            ),
            "one index twice",
        ),
        (
            lambda a: mb.list_read(
                ls=mb.make_list(init_length=2, dynamic_length=False, elem_shape=(2,)), index=0
            ),
            "fixed length",
        ),
    ],
    ids=["read", "gather", "scatter", "fixed"],
)
def test_what_is_not_documented_of_lists_is_refused(
    run: Run, build: Callable[..., Any], match: str
) -> None:
    with pytest.raises(ArtifactError, match=match):
        run(build, [A])
