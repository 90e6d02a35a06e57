"""The table of operations: a function's signature is the schema of the operation's arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from slide_deploy.validators._mil.dtypes import Array

__all__ = [
    "OPERATIONS",
    "Arguments",
    "Arrays",
    "Bools",
    "Implementation",
    "Ints",
    "call",
    "operation",
]

Arguments = Mapping[str, tuple[Array, ...]]
Arrays = tuple[Array, ...]
Ints = tuple[int, ...]
Bools = tuple[bool, ...]
Function = TypeVar("Function", bound=Callable[..., Any])

_MIXING_OPSET = 7


@dataclass(frozen=True)
class Implementation:
    """A function and how each of its parameters is read."""

    function: Callable[..., Any]
    kinds: Mapping[str, str]
    required: frozenset[str]
    takes_opset: bool
    widens: bool
    mixes: bool


OPERATIONS: dict[str, Implementation] = {}


def operation(
    *names: str, widens: bool = True, mixes: bool = False
) -> Callable[[Function], Function]:
    """Register a function as MIL operations. A parameter `opset` gets the program's number.

    The annotation of a parameter says what it accepts: Array (any tensor), Arrays (several),
    Ints and Bools (vectors), int, float, bool and str (scalars).

    widens: float16 tensors are computed with in float32, and the results rounded to float16;
        not for operations that only move elements or fix their own element type.
    mixes: from CoreML7 on, parameters may be of another float type than the first tensor.
    """

    def register(function: Function) -> Function:
        parameters = dict(inspect.signature(function).parameters)
        takes_opset = parameters.pop("opset", None) is not None
        implementation = Implementation(
            function,
            {k: str(p.annotation).removesuffix(" | None") for k, p in parameters.items()},
            frozenset(k for k, p in parameters.items() if p.default is p.empty),
            takes_opset,
            widens,
            mixes,
        )
        for name in names:
            OPERATIONS[name] = implementation
        return function

    return register


def call(implementation: Implementation, arguments: Arguments, opset: int) -> Arrays:
    """Compute the results; ValueError and TypeError say what is wrong with an argument."""
    unknown = sorted(set(arguments) - set(implementation.kinds))
    if unknown:
        raise ValueError(f"argument {unknown[0]!r} is not supported")
    missing = sorted(implementation.required - set(arguments))
    if missing:
        raise ValueError(f"argument {missing[0]!r} is missing")
    given: dict[str, Any] = {"opset": opset} if implementation.takes_opset else {}
    for key, arrays in arguments.items():
        given[key] = _read(key, implementation.kinds[key], arrays, implementation.widens)
    result = implementation.function(**given)
    results = result if isinstance(result, tuple) else (result,)
    if not implementation.widens:
        return tuple(np.asarray(array) for array in results)
    return _narrowed(results, _float_type(implementation, arguments, opset))


def _float_type(
    implementation: Implementation, arguments: Arguments, opset: int
) -> np.dtype[Any] | None:
    """The float type an operation computes in: that of its first tensor, usually of all."""
    types = [
        array.dtype
        for key, kind in implementation.kinds.items()
        if kind in ("Array", "Arrays")
        for array in arguments.get(key, ())
        if array.dtype.kind == "f"
    ]
    if len(set(types)) > 1 and not (implementation.mixes and opset >= _MIXING_OPSET):
        raise ValueError(f"tensors of types {', '.join(map(str, types))}")
    return types[0] if types else None


def _narrowed(results: Arrays, dtype: np.dtype[Any] | None) -> Arrays:
    """What was computed in float32 rounded to the type of the operation."""
    return tuple(
        np.asarray(array).astype(dtype, copy=False)
        if dtype is not None and np.asarray(array).dtype == np.float32
        else np.asarray(array)
        for array in results
    )


def _read(key: str, kind: str, arrays: Arrays, widens: bool) -> Any:
    """The argument as the parameter's annotation asks for it."""
    if kind == "Arrays":
        return tuple(_widened(array) if widens else array for array in arrays)
    if len(arrays) != 1:
        raise ValueError(f"argument {key!r} is a list of {len(arrays)} values")
    array = arrays[0]
    if kind == "Array":
        return _widened(array) if widens else array
    rank, element_kinds, convert = _KINDS[kind]
    if array.ndim != rank or array.dtype.kind not in element_kinds:
        raise ValueError(f"argument {key!r} is {array.dtype} of rank {array.ndim}, not {kind}")
    return convert(array)


def _widened(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _vector(array: Array) -> tuple[Any, ...]:
    return tuple(array.tolist())


# Annotation -> rank, numpy kinds of element, conversion.
_KINDS: dict[str, tuple[int, str, Callable[[Array], Any]]] = {
    "int": (0, "iu", int),
    "float": (0, "fiu", float),
    "bool": (0, "b", bool),
    "str": (0, "U", str),
    "Ints": (1, "iu", _vector),
    "Bools": (1, "b", _vector),
}
