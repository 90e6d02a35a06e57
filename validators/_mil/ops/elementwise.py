"""Arithmetic, comparison and elementary functions, element by element with broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from slide_deploy.validators._mil.dtypes import Array
from slide_deploy.validators._mil.interpolation import interpolated
from slide_deploy.validators._mil.ops.registry import Note, operation
from slide_deploy.validators._mil.program import Unsupported

__all__ = ["clip", "inverse", "log", "real_div", "rsqrt", "select", "threshold"]

_UNARY: dict[str, Callable[[Array], Any]] = {
    "abs": np.abs,
    "acos": np.arccos,
    "asin": np.arcsin,
    "atan": np.arctan,
    "atanh": np.arctanh,
    "ceil": np.ceil,
    "cos": np.cos,
    "cosh": np.cosh,
    "erf": lambda x: interpolated(special.erf, x),
    "exp": np.exp,
    "exp2": np.exp2,
    "floor": np.floor,
    "logical_not": np.logical_not,
    "round": np.rint,
    "sign": np.sign,
    "sin": np.sin,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "square": np.square,
    "tan": np.tan,
    "tanh": np.tanh,
}

_BINARY: dict[str, Callable[[Array, Array], Any]] = {
    "add": np.add,
    "equal": np.equal,
    "floor_div": np.floor_divide,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "mod": np.mod,
    "mul": np.multiply,
    "not_equal": np.not_equal,
    "pow": np.power,
    "sub": np.subtract,
}


def _unary(function: Callable[[Array], Any]) -> Callable[..., Any]:
    def apply(x: Array) -> Any:
        return function(x)

    return apply


def _binary(function: Callable[[Array, Array], Any]) -> Callable[..., Any]:
    def apply(x: Array, y: Array) -> Any:
        _same_type(x, y)
        return function(x, y)

    return apply


def _same_type(x: Array, y: Array) -> None:
    # numpy would promote types; MIL has no such rule.
    if x.dtype != y.dtype:
        raise ValueError(f"operands of types {x.dtype} and {y.dtype}")


for _name, _function in _UNARY.items():
    operation(_name, pointwise=True)(_unary(_function))
for _name, _ufunc in _BINARY.items():
    operation(_name)(_binary(_ufunc))


@operation("real_div")
def real_div(x: Array, y: Array, note: Note) -> Array:
    """x / y; of integers rounded towards zero, as in Apple's tests."""
    _same_type(x, y)
    if x.dtype.kind == "f":
        return x / y
    if not np.all(y):
        raise Unsupported("a division of integers by zero")
    note("a quotient of integers is rounded towards zero")
    quotient: Array = np.trunc(x.astype(np.float64) / y).astype(x.dtype)
    return quotient


@operation("inverse", pointwise=True)
def inverse(x: Array, epsilon: float = 1e-4) -> Array:
    """1 / (x + epsilon)."""
    return np.reciprocal(x + epsilon)


@operation("log", pointwise=True)
def log(x: Array, epsilon: float = 1e-45) -> Array:
    """log(x + epsilon)."""
    return np.log(x + epsilon)


@operation("rsqrt", pointwise=True)
def rsqrt(x: Array, epsilon: float = 1e-12) -> Array:
    """1 / sqrt(x + epsilon)."""
    result: Array = np.reciprocal(np.sqrt(x + epsilon))
    return result


@operation("clip", pointwise=True)
def clip(x: Array, alpha: float, beta: float) -> Array:
    """x clipped to alpha to beta."""
    result: Array = np.minimum(np.maximum(x, alpha), beta)
    return result


@operation("threshold", pointwise=True)
def threshold(x: Array, alpha: float) -> Array:
    """max(x, alpha)."""
    result: Array = np.maximum(x, x.dtype.type(alpha))
    return result


@operation("select", widens=False)
def select(cond: Array, a: Array, b: Array) -> Array:
    """a where cond, else b."""
    _same_type(a, b)
    if cond.dtype != np.bool_:
        raise ValueError(f"a condition of type {cond.dtype}")
    return np.where(cond, a, b)
