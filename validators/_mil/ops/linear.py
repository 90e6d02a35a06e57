"""Matrix products."""

from __future__ import annotations

import math

import numpy as np

from slide_deploy.validators._mil.dtypes import Array
from slide_deploy.validators._mil.ops.activation import softmax
from slide_deploy.validators._mil.ops.registry import Arrays, operation
from slide_deploy.validators._mil.program import Unsupported

__all__ = ["einsum", "linear", "matmul", "scaled_dot_product_attention"]

_IOS17 = 7


@operation("linear", mixes=("weight", "bias"))
def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x weight^T + bias."""
    x, weight = _alike(x, weight)
    # One product of two matrices; numpy would compute one for each leading index.
    result = (x.reshape(-1, x.shape[-1]) @ weight.T).reshape(*x.shape[:-1], weight.shape[0])
    if bias is not None:
        if bias.shape != weight.shape[:1]:
            raise ValueError(f"bias {bias.shape} for weight {weight.shape}")
        result += bias.astype(result.dtype, copy=False)
    return result


@operation("matmul", mixes=("x", "y"))
def matmul(
    x: Array, y: Array, opset: int, transpose_x: bool = False, transpose_y: bool = False
) -> Array:
    """x y over the last two axes; vectors are not transposed."""
    if opset < _IOS17 and x.dtype != y.dtype:
        raise ValueError(f"operands of types {x.dtype} and {y.dtype}")
    x, y = _alike(x, y)
    if transpose_x and x.ndim > 1:
        x = x.swapaxes(-1, -2)
    if transpose_y and y.ndim > 1:
        y = y.swapaxes(-1, -2)
    product: Array = np.matmul(x, y)
    return product


@operation("einsum")
def einsum(values: Arrays, equation: str) -> Array:
    """Two operands in Einstein's notation, as one batched matrix product."""
    if len(values) != 2:
        raise Unsupported(f"{len(values)} operands, not 2")
    left, right, out = _subscripts(equation)
    x, y = values
    if x.ndim != len(left) or y.ndim != len(right):
        raise ValueError(f"operands of rank {x.ndim} and {y.ndim} for {equation!r}")
    batch = [c for c in out if c in left and c in right]
    rows = [c for c in out if c in left and c not in right]
    columns = [c for c in out if c in right and c not in left]
    inner = [c for c in left if c in right and c not in out]
    if sorted(out) != sorted(batch + rows + columns) or not (
        set(left) == {*batch, *rows, *inner} and set(right) == {*batch, *inner, *columns}
    ):
        raise Unsupported(f"equation {equation!r} is not a product of matrices")
    x = x.transpose([left.index(c) for c in batch + rows + inner])
    y = y.transpose([right.index(c) for c in batch + inner + columns])
    first, last = len(batch), len(batch) + len(rows)
    row_sizes, column_sizes = x.shape[first:last], y.shape[first + len(inner) :]
    if x.shape[last:] != y.shape[first : first + len(inner)]:
        raise ValueError(f"operands {values[0].shape} and {values[1].shape} for {equation!r}")
    depth = math.prod(x.shape[last:])
    result: Array = np.matmul(
        x.reshape(*x.shape[:first], math.prod(row_sizes), depth),
        y.reshape(*y.shape[:first], depth, math.prod(column_sizes)),
    )
    result = result.reshape(*result.shape[:first], *row_sizes, *column_sizes)
    return result.transpose([(batch + rows + columns).index(c) for c in out])


@operation("scaled_dot_product_attention", mixes=("attn_mask",))
def scaled_dot_product_attention(
    query: Array, key: Array, value: Array, attn_mask: Array | None = None
) -> Array:
    """softmax(query key^T / sqrt(d) + mask) value; a boolean mask is true for visible keys."""
    scores = np.matmul(query, key.swapaxes(-1, -2)) / np.float32(math.sqrt(query.shape[-1]))
    if attn_mask is not None and attn_mask.dtype == np.bool_:
        scores = np.where(attn_mask, scores, -np.inf).astype(scores.dtype, copy=False)
    elif attn_mask is not None:
        scores = scores + attn_mask
    result: Array = np.matmul(softmax(scores), value)
    return result


def _alike(x: Array, y: Array) -> tuple[Array, Array]:
    """Both operands as float32, if only one of them has integers."""
    if x.dtype == y.dtype:
        return x, y
    return x.astype(np.float32, copy=False), y.astype(np.float32, copy=False)


def _subscripts(equation: str) -> tuple[str, str, str]:
    operands, arrow, out = equation.replace(" ", "").partition("->")
    left, comma, right = operands.partition(",")
    repeated = any(len(set(term)) != len(term) for term in (left, right, out))
    if not (arrow and comma) or repeated or not (left + right + out).isalpha():
        raise Unsupported(f"equation {equation!r} is not supported")
    return left, right, out
