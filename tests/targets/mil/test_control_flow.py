"""Nested blocks, states, and packages with several functions."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.converter import mil_convert
from coremltools.converters.mil.mil import Function, Program, types

from slide_deploy.errors import ArtifactError
from slide_deploy.validators._mil import evaluate, histogram, new_state, read_package, violations

Run = Callable[..., list[np.ndarray]]
X = np.array([[1, -2], [3, 4]], np.float32)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("sign", "expected"), [(1, 2 * X), (-1, X - 1)])
def test_cond_takes_one_of_two_blocks(run: Run, sign: int, expected: np.ndarray, rank: int) -> None:
    def build(x: Any, s: Any) -> Any:
        return mb.cond(
            pred=mb.greater(x=s, y=np.float32(0)),
            _true_fn=lambda: mb.mul(x=x, y=np.float32(2)),
            _false_fn=lambda: mb.sub(x=x, y=np.float32(1)),
        )

    (found,) = run(
        lambda x, s: build(x, s if rank else mb.squeeze(x=s)), [X, np.array([sign], np.float32)]
    )
    np.testing.assert_array_equal(found, expected)


def doubled_until(x: Any, limit: float) -> Any:
    """x doubled, and the rounds counted, until its sum reaches a limit."""

    def goes_on(a: Any, i: Any) -> Any:
        return mb.less(x=mb.reduce_sum(x=a, keep_dims=False), y=np.float32(limit))

    def body(a: Any, i: Any) -> Any:
        return mb.add(x=a, y=a), mb.add(x=i, y=np.float32(1))

    return mb.while_loop(_cond=goes_on, _body=body, loop_vars=(x, np.float32(0)))


@pytest.mark.parametrize(("limit", "rounds"), [(100, 5), (0, 0)])
def test_while_loop_runs_its_body_while_its_condition_holds(
    run: Run, limit: float, rounds: int
) -> None:
    doubled, count = run(lambda x: tuple(doubled_until(x, limit)), [X])
    np.testing.assert_array_equal(doubled, X * 2**rounds)
    assert count == rounds


def test_nested_blocks_are_counted_observed_and_judged(
    write: Callable[..., Path], edit: Callable[..., Path]
) -> None:
    path = write(lambda x: tuple(doubled_until(x, 100)), [X])
    program, seen = read_package(path), list[str]()
    evaluate(program, {"x": X}, lambda name, _: seen.append(name))
    assert histogram(program)["reduce_sum"] == 1
    assert sum(name.startswith("reduce_sum") for name in seen) == 6
    assert violations(program) == []

    def unknown(model: Any) -> None:
        function = model.mlProgram.functions["main"]
        operations = function.block_specializations[function.opset].operations
        loop = next(o for o in operations if o.type == "while_loop")
        next(o for o in loop.blocks[1].operations if o.type == "add").type = "ad"

    broken = read_package(edit(path, unknown))
    assert any("is not a MIL operation" in line for line in violations(broken))
    with pytest.raises(ArtifactError, match="operation 'ad' is not supported"):
        evaluate(broken, {"x": X})


def save(program: Any, path: Path) -> Path:
    with warnings.catch_warnings(), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        model = mil_convert(
            program,
            convert_from="milinternal",
            convert_to="mlprogram",
            specification_version=ct.target.iOS18,
            pass_pipeline=ct.PassPipeline.EMPTY,
            compute_units=ct.ComputeUnit.CPU_ONLY,
            skip_model_load=True,
        )
        model.save(str(path))
        logging.disable(logging.NOTSET)
    return path


@pytest.fixture
def accumulator(tmp_path: Path) -> Path:
    """A package that adds its input to a state and gives twice the sum."""

    @mb.program(
        input_specs=[
            mb.TensorSpec((2, 2), dtype=types.fp16),
            mb.StateTensorSpec((2, 2), dtype=types.fp16),
        ],
        opset_version=ct.target.iOS18,
    )
    def program(x: Any, total: Any) -> Any:
        new = mb.add(x=mb.read_state(input=total), y=x)
        kept = mb.coreml_update_state(state=total, value=new)
        return mb.add(x=kept, y=kept)

    return save(program, tmp_path / "model.mlpackage")


def test_a_state_is_kept_between_runs(accumulator: Path) -> None:
    program = read_package(accumulator)
    x = X.astype(np.float16)
    state = new_state(program)
    assert list(state) == ["total"]
    assert violations(program) == []
    for rounds in (1, 2, 3):
        (found,) = evaluate(program, {"x": x}, state=state).values()
        np.testing.assert_array_equal(found, 2 * rounds * x)
        np.testing.assert_array_equal(state["total"], rounds * x)
    (found,) = evaluate(program, {"x": x}).values()
    np.testing.assert_array_equal(found, 2 * x)


def test_a_state_of_another_shape_is_refused(accumulator: Path) -> None:
    program = read_package(accumulator)
    with pytest.raises(ArtifactError, match="the state total is not float16 of shape"):
        evaluate(program, {"x": X.astype(np.float16)}, state={"total": X})


def test_a_state_that_is_not_described_is_refused(
    accumulator: Path, edit: Callable[..., Path]
) -> None:
    with pytest.raises(ArtifactError, match="states described"):
        read_package(edit(accumulator, lambda model: model.description.ClearField("state")))


def test_each_of_several_functions_can_be_read(tmp_path: Path) -> None:
    program = Program()
    for name, factor in (("main", 2), ("other", 3)):
        placeholders = {"x": mb.placeholder((2, 2), dtype=types.fp32)}
        with Function(placeholders, opset_version=ct.target.iOS18) as function:
            function.set_outputs([mb.mul(x=function.inputs["x"], y=np.float32(factor))])
            program.add_function(name, function)
    program.default_function_name = "other"
    program.export_as_multifunction = True
    path = save(program, tmp_path / "model.mlpackage")
    for name, factor in ((None, 3), ("main", 2), ("other", 3)):
        read = read_package(path, name)
        assert read.functions == ("main", "other")
        (found,) = evaluate(read, {"x": X}).values()
        np.testing.assert_array_equal(found, factor * X)
    with pytest.raises(ArtifactError, match="no function 'third'"):
        read_package(path, "third")
