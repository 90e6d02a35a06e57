"""From CoreML7 on, some arguments may have another type than the result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb

from slide_deploy.errors import ArtifactError
from slide_deploy.validators._mil import evaluate, read_package
from slide_deploy.validators._mil.ops import OPERATIONS, call

Run = Callable[..., list[np.ndarray]]
X = np.array([[1.5, -2.0]], np.float32)
WHOLE = np.array([[2, 3], [4, 5]], np.int32)


@pytest.mark.parametrize("dtype", [np.float16, np.int32])
def test_matmul_has_the_type_of_the_operand_that_is_not_constant(run: Run, dtype: type) -> None:
    constant = WHOLE.astype(dtype)
    (left,) = run(lambda x: mb.matmul(x=x, y=constant), [X], 7)
    (right,) = run(lambda x: mb.matmul(x=constant, y=x, transpose_y=True), [X], 7)
    assert left.dtype == right.dtype == np.float32
    assert (left.tolist(), right.tolist()) == ((X @ WHOLE).tolist(), (WHOLE @ X.T).tolist())


def test_an_integer_matmul_by_fractions_is_refused_where_it_is_not_whole(run: Run) -> None:
    x = np.array([[1, 2]], np.int32)
    (found,) = run(lambda x: mb.matmul(x=x, y=WHOLE.astype(np.float32)), [x], 7)
    assert (found.dtype, found.tolist()) == (np.int32, [[10, 13]])
    with pytest.raises(ArtifactError, match="not whole"):
        run(lambda x: mb.matmul(x=x, y=WHOLE / np.float32(4)), [x], 7)


def test_operands_of_two_types_that_are_both_given_are_refused() -> None:
    arguments = {"x": (X,), "y": (WHOLE,)}
    with pytest.raises(ValueError, match="types float32, int32"):
        call(OPERATIONS["matmul"], arguments, 7)
    with pytest.raises(ValueError, match="types float32 and int32"):
        call(OPERATIONS["matmul"], arguments, 6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_linear_with_integer_weights(run: Run, dtype: type) -> None:
    bias = np.array([1, -1], np.int32)
    (found,) = run(lambda x: mb.linear(x=x, weight=WHOLE, bias=bias), [X.astype(dtype)], 7)
    assert (found.dtype, found.tolist()) == (dtype, (X @ WHOLE.T + bias).tolist())


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_an_attention_mask_of_another_float_type(run: Run, dtype: type) -> None:
    q = np.array([[[1, 0], [0, 1]]], dtype)
    mask = np.array([[[0, -np.inf], [-np.inf, 0]]], np.float16 if dtype is np.float32 else "f4")

    def build(q: Any) -> Any:
        return mb.scaled_dot_product_attention(query=q, key=q, value=q, attn_mask=mask)

    (found,) = run(build, [q], 8)
    assert (found.dtype, found.tolist()) == (dtype, q.tolist())


def test_one_conversion_of_a_constant_serves_all_runs(write: Callable[..., Path]) -> None:
    x = np.ones((1, 8), np.float16)
    weight = np.full((4, 8), 0.5, np.float16)
    program = read_package(write(lambda x: mb.linear(x=x, weight=weight), [x], 6))

    def widened() -> list[int]:
        evaluate(program, {"x": x})
        constants = [c for op in program.operations for c in op.folded.values()]
        return [id(c.wide) for c in constants if c.data.dtype == np.float16]

    first = widened()
    assert first
    assert widened() == first
