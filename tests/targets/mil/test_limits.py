"""Limits of Core ML, and the opsets of operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil._deployment_compatibility import AvailableTarget
from coremltools.converters.mil.mil import get_new_symbol
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

from slide_deploy.validators._mil import (
    Operation,
    Program,
    TensorType,
    Value,
    read_package,
    violations,
)
from slide_deploy.validators._mil.ops import OPERATIONS
from slide_deploy.validators._mil.opsets import FIRST_ARGUMENT_OPSET, FIRST_OPSET

X = np.ones((2, 3), np.float32)


@dataclass(frozen=True)
class Flexible:
    """Stands for an input some of whose dimensions are unknown to the program."""

    shape: tuple[Any, ...]
    dtype: str = "float32"


@pytest.fixture(scope="module")
def program(write: Callable[..., Path]) -> Program:
    return read_package(write(lambda x: mb.gather(x=x, indices=[1, 0], axis=0), [X], 6))


def last(program: Program, **changes: object) -> Program:
    *others, operation = program.operations
    return replace(program, operations=(*others, replace(operation, **changes)))  # type: ignore[arg-type]


def test_a_good_program_breaks_none(program: Program) -> None:
    assert violations(program) == []


def test_rank_six(program: Program) -> None:
    # coremltools refuses to write one.
    deep = Value("deep", TensorType("fp32", (1, 1, 1, 1, 2, 3)))
    assert violations(last(program, outputs=(deep,))) == ["deep is of rank 6, more than 5"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "custom_layer"}, "custom_layer gather_0 is a custom layer"),
        ({"type": "gaher"}, "gaher gather_0 is not a MIL operation"),
        ({"type": "slice_update"}, "slice_update gather_0 needs CoreML8, the program is CoreML6"),
        (
            {"inputs": {"x": ("x",), "validate_indices": ("x",)}},
            "gather gather_0: argument validate_indices needs CoreML7, the program is CoreML6",
        ),
    ],
)
def test_operations_of_another_opset(
    program: Program, changes: dict[str, object], message: str
) -> None:
    assert violations(last(program, **changes)) == [message]


def test_versions(program: Program) -> None:
    assert violations(replace(program, spec_version=8)) == []
    assert violations(replace(program, spec_version=6)) == [
        "specification version 6 is older than the opset CoreML6, which needs 7"
    ]
    assert violations(replace(program, opset="CoreML12", spec_version=13)) == [
        "the opset CoreML12 is not one of CoreML5 to CoreML9"
    ]
    assert violations(replace(program, opset="Tensor5")) == ["unknown MIL opset 'Tensor5'"]


def test_float16_features_need_ios16(program: Program) -> None:
    feature = replace(program.inputs[0], dtype="fp16")
    older = replace(program, inputs=(feature,), opset="CoreML5", spec_version=6)
    assert "x is fp16, which needs specification version 7" in violations(older)


def test_the_table_is_that_of_coremltools() -> None:
    for name, versions in SSAOpRegistry.core_ops.items():
        if name.startswith("_"):
            continue
        # coremltools registers its oldest under iOS 13, but ML programs begin with iOS 15.
        first = max(min(versions), AvailableTarget.iOS15)
        assert FIRST_OPSET[name] == int(first) - 1, name
    assert set(FIRST_OPSET) <= set(SSAOpRegistry.core_ops)
    assert set(OPERATIONS) <= set(FIRST_OPSET)


def test_the_arguments_in_the_table_exist() -> None:
    for name, argument in FIRST_ARGUMENT_OPSET:
        assert argument in OPERATIONS[name].kinds


def test_a_shape_of_unknown_length_is_no_violation(write: Callable[..., Path]) -> None:
    shape = Flexible((get_new_symbol(),), "int32")
    described = [ct.TensorType(name="shape", shape=(ct.RangeDim(1, 3),))]
    program = read_package(write(lambda shape: mb.fill(shape=shape), [shape], 6, described))
    assert program.operations[-1].outputs[0].type.shape is None
    assert violations(program) == []


@pytest.mark.parametrize(("default", "broken"), [(4, []), (2, ["at the default shapes"])])
def test_the_default_shapes_must_fit_each_other(
    write: Callable[..., Path], default: int, broken: list[str]
) -> None:
    fixed = np.ones((2, 4), np.float32)
    flexible = Flexible((2, get_new_symbol()))
    described = [
        ct.TensorType(name="x", shape=(2, 4)),
        ct.TensorType(name="y", shape=(2, ct.RangeDim(1, 9, default))),
    ]
    path = write(lambda x, y: mb.stack(values=(x, y), axis=0), [fixed, flexible], 6, described)
    assert [line[:21] for line in violations(read_package(path))] == broken


def test_a_shape_that_is_an_input_is_not_held_against_the_default_shapes(
    write: Callable[..., Path],
) -> None:
    flexible, shape = Flexible((2, get_new_symbol())), np.ones(3, np.int32)
    described = [
        ct.TensorType(name="x", shape=(2, ct.RangeDim(1, 9, 1))),
        ct.TensorType(name="shape", shape=(3,)),
    ]
    path = write(lambda x, shape: mb.reshape(x=x, shape=shape), [flexible, shape], 6, described)
    assert violations(read_package(path)) == []


@pytest.mark.parametrize(
    "build",
    [
        lambda x: mb.slice_by_index(x=x, begin=[0, 1], end=[2, 2], squeeze_mask=[False, True]),
        lambda x: mb.linear(x=x, weight=np.ones((3, 5), np.float32)),
    ],
    ids=["an index", "linear"],
)
def test_apples_tests_run_what_does_not_fit_the_default_shapes(
    write: Callable[..., Path], build: Callable[..., Any]
) -> None:
    described = [ct.TensorType(name="x", shape=(2, ct.RangeDim(1, 9, 1)))]
    path = write(build, [Flexible((2, get_new_symbol()))], 6, described)
    assert violations(read_package(path)) == []


def test_lengths_are_not_held_against_the_default_shapes(write: Callable[..., Path]) -> None:
    described = [ct.TensorType(name="x", shape=(2, ct.RangeDim(1, 9, 1)))]
    path = write(
        lambda x: mb.reverse_sequence(x=x, lengths=[3, 1], seq_axis=1, batch_axis=0),
        [Flexible((2, get_new_symbol()))],
        6,
        described,
    )
    assert violations(read_package(path)) == []


def test_programs_are_values(program: Program) -> None:
    assert replace(program) == program
    with pytest.raises(AttributeError):
        program.opset = "CoreML5"  # type: ignore[misc]
    assert isinstance(program.operations[-1], Operation)
