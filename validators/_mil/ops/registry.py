"""The registry of operations, whose arguments are the parameters of functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from slide_deploy.validators._mil.dtypes import Array
from slide_deploy.validators._mil.half_tables import WORTH_A_TABLE, looked_up
from slide_deploy.validators._mil.halves import Half, rounded, widened
from slide_deploy.validators._mil.program import Constant, Held, Unsupported

__all__ = [
    "OPERATIONS",
    "Arguments",
    "Arrays",
    "Bools",
    "Exact",
    "Implementation",
    "Ints",
    "Note",
    "call",
    "ignore",
    "operation",
]

Arguments = Mapping[str, tuple[Held, ...]]
Arrays = tuple[Array, ...]
Ints = tuple[int, ...]
Bools = tuple[bool, ...]
# Takes one line that names an undocumented rule, such as one of Apple's tests.
Note = Callable[[str], None]
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False)
class Exact:
    """A result of which each element is zero or one of the first argument: it needs no rounding."""

    array: Array


@dataclass(frozen=True)
class Implementation:
    """A function and the types of its parameters."""

    function: Callable[..., Any]
    kinds: Mapping[str, str]
    required: frozenset[str]
    takes: frozenset[str]
    widens: bool
    moves: bool
    mixes: frozenset[str]
    mixes_from: int
    pointwise: bool


OPERATIONS: dict[str, Implementation] = {}


def ignore(rule: str) -> None:
    """A Note that does nothing."""
    del rule


def operation(
    *names: str,
    widens: bool = True,
    moves: bool = False,
    mixes: tuple[str, ...] = (),
    mixes_from: int = 7,
    pointwise: bool = False,
) -> Callable[[Function], Function]:
    """Register a function as MIL operations.

    The annotation of a parameter is its type: Array (any tensor), Arrays (several), Ints and Bools
    (vectors), int, float, bool and str (scalars). Two names are not arguments: `opset` is the
    number of the program's opset, `note` a function to call with undocumented rules.

    widens: float16 tensors are converted to float32, and results are rounded to float16; not for
        operations that fix their own element type.
    moves: elements of the first argument are moved but not changed, so that their type does not
        matter.
    mixes: from the opset `mixes_from` on, these arguments may have another type than the result.
        If there are no other tensors, the result has the type of those that are not constant.
    pointwise: the only tensor is `x`, and each element of the result depends on one of `x`.
    """

    def register(function: Function) -> Function:
        parameters = dict(inspect.signature(function).parameters)
        takes = {name for name in ("opset", "note") if parameters.pop(name, None) is not None}
        implementation = Implementation(
            function,
            {k: str(p.annotation).removesuffix(" | None") for k, p in parameters.items()},
            frozenset(k for k, p in parameters.items() if p.default is p.empty),
            frozenset(takes),
            widens and not moves,
            moves,
            frozenset(mixes),
            mixes_from,
            pointwise,
        )
        for name in names:
            OPERATIONS[name] = implementation
        return function

    return register


def call(
    implementation: Implementation, arguments: Arguments, opset: int, note: Note = ignore
) -> tuple[Array | Half, ...]:
    """Compute the results; ValueError and TypeError say what is wrong with an argument."""
    if unknown := arguments.keys() - implementation.kinds.keys():
        raise Unsupported(f"argument {min(unknown)!r} is not supported")
    if missing := implementation.required - arguments.keys():
        raise ValueError(f"argument {min(missing)!r} is missing")
    context: dict[str, Any] = {"opset": opset, "note": note}
    given = {key: context[key] for key in implementation.takes}
    moved = _moved(implementation, arguments) if implementation.moves else None
    if moved is not None:
        arguments = {**arguments, next(iter(implementation.kinds)): (moved.wide,)}
    for key, held in arguments.items():
        given[key] = _read(key, implementation.kinds[key], held, implementation.widens)
    if implementation.pointwise and _is_worth_a_table(arguments["x"][0].dtype, given["x"]):
        return (Half(looked_up(implementation.function, given.pop("x"), given)),)
    result = implementation.function(**given)
    results = result if isinstance(result, tuple) else (result,)
    if moved is not None:
        return tuple(Half(array) for array in results)
    if not implementation.widens:
        return tuple(np.asarray(array) for array in results)
    dtype = _result_type(implementation, arguments, opset)
    return tuple(_narrowed(array, dtype, given) for array in results)


def _is_worth_a_table(dtype: np.dtype[Any], x: Array) -> bool:
    return dtype == np.float16 and x.size >= WORTH_A_TABLE


def _arrays(value: Any) -> Iterator[Array]:
    for item in value if isinstance(value, tuple) else (value,):
        if isinstance(item, np.ndarray):
            yield item


def _moved(implementation: Implementation, arguments: Arguments) -> Half | None:
    """The tensor whose elements an operation only moves, if it is float16."""
    held = arguments.get(next(iter(implementation.kinds), ""), ())
    if len(held) == 1 and isinstance(held[0], Half):
        return held[0]
    return None


def _tensors(
    implementation: Implementation, arguments: Arguments
) -> Iterator[tuple[str, bool, np.dtype[Any]]]:
    """Name, whether it is constant, and element type of each tensor, in the order of arguments."""
    for key, kind in implementation.kinds.items():
        if kind in ("Array", "Arrays"):
            for held in arguments.get(key, ()):
                yield key, isinstance(held, Constant), held.dtype


def _result_type(
    implementation: Implementation, arguments: Arguments, opset: int
) -> np.dtype[Any] | None:
    """The type of an operation's float tensors, except those that may have another type."""
    tensors = list(_tensors(implementation, arguments))
    kinds = "f"
    if implementation.mixes and opset >= implementation.mixes_from:
        kinds = "fiu"
        own = [tensor for tensor in tensors if tensor[0] not in implementation.mixes]
        tensors = own or [tensor for tensor in tensors if not tensor[1]] or tensors
    types = [dtype for _, _, dtype in tensors if dtype.kind in kinds]
    if len(set(types)) > 1:
        raise ValueError(f"tensors of types {', '.join(map(str, types))}")
    return types[0] if types else None


def _narrowed(
    result: Array | Exact, dtype: np.dtype[Any] | None, given: Mapping[str, Any]
) -> Array | Half:
    """A result in float32, rounded to the type of the operation; `given` are its arguments."""
    if isinstance(result, Exact):
        return Half(result.array) if dtype == np.float16 else result.array
    result = np.asarray(result)
    if dtype is None or result.dtype != np.float32:
        return result
    if dtype.kind in "iu" and not np.array_equal(result, np.trunc(result)):
        raise Unsupported(f"a result of type {dtype} that is not whole: its rounding is unknown")
    if dtype != np.float16:
        return result.astype(dtype, copy=False)
    tensors = (array for value in given.values() for array in _arrays(value))
    own = result.flags.writeable and not any(np.may_share_memory(result, x) for x in tensors)
    return Half(rounded(result, in_place=own))


def _read(key: str, kind: str, arrays: tuple[Held, ...], widens: bool) -> Any:
    """The argument, converted according to the parameter's annotation."""
    if kind == "Arrays":
        return tuple(_tensor(held, widens) for held in arrays)
    if len(arrays) != 1:
        raise ValueError(f"argument {key!r} is a list of {len(arrays)} values")
    (held,) = arrays
    if kind == "Array":
        return _tensor(held, widens)
    if not isinstance(held, Constant):
        return _converted(key, kind, _tensor(held, False))
    if kind not in held.read_as:
        held.read_as[kind] = _converted(key, kind, held.data)
    return held.read_as[kind]


def _converted(key: str, kind: str, array: Array) -> Any:
    rank, element_kinds, convert = _KINDS[kind]
    if array.ndim != rank or array.dtype.kind not in element_kinds:
        raise ValueError(f"argument {key!r} is {array.dtype} of rank {array.ndim}, not {kind}")
    return convert(array)


def _tensor(held: Held, widens: bool) -> Array:
    if isinstance(held, Constant | Half):
        return held.wide if widens else held.data
    return widened(held) if widens else held


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
