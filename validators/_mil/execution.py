"""Runs a block of operations, including nested blocks, and checks the types of results."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from slide_deploy.errors import ArtifactError
from slide_deploy.validators._mil.dtypes import Array, dtype_named
from slide_deploy.validators._mil.halves import Half
from slide_deploy.validators._mil.ops import OPERATIONS, Arguments, Note, call
from slide_deploy.validators._mil.ops.registry import Implementation
from slide_deploy.validators._mil.opsets import FIRST_OPSET
from slide_deploy.validators._mil.program import (
    Block,
    Constant,
    Held,
    Operation,
    Unsupported,
    Value,
    shape_fits,
)

__all__ = ["Context", "Observer", "is_implemented", "run_block"]

Observer = Callable[[str, Array], None]
Values = MutableMapping[str, Held]
Arrays = tuple[Array, ...]
Kept = TypeVar("Kept", bound=Array | Half)

# Exceptions of numpy and of the operations for incompatible arguments.
_MISFITS = (ValueError, IndexError, TypeError, ZeroDivisionError, OverflowError)


@dataclass(frozen=True)
class Context:
    """Common data of all operations of a run."""

    opset: int
    states: MutableMapping[str, Array]
    observe: Observer | None
    note: Note
    # Taken instead of ours where an operation gives float16.
    replaced: Mapping[str, Implementation]


def is_implemented(kind: str) -> bool:
    """Whether operations of this type can be computed."""
    return kind in OPERATIONS or kind in _STRUCTURAL


def run_block(block: Block, values: Values, context: Context) -> list[Array]:
    """The block's outputs; `values` has its inputs and the outer values."""
    for name in block.last_uses.get(-1, ()):
        del values[name]
    for index, operation in enumerate(block.operations):
        results = operation.folded or _results(operation, values, context)
        values.update(results)
        if context.observe is not None and operation.type != "const":
            for name, result in results.items():
                context.observe(name, _array(result))
        for name in block.last_uses.get(index, ()):
            del values[name]
    return [_array(values[name]) for name in block.outputs]


def _array(held: Held) -> Array:
    return held.data if isinstance(held, Constant | Half) else held


def _results(operation: Operation, values: Values, context: Context) -> Mapping[str, Held]:
    """The results of one operation by the names of its outputs."""
    where = f"{operation.type} {operation.name}"
    try:
        results = _computed(operation, values, context, where)
        if len(results) != len(operation.outputs):
            raise ValueError(f"{len(operation.outputs)} outputs declared, not {len(results)}")
        named = {
            value.name: _as_declared(value, result)
            for value, result in zip(operation.outputs, results, strict=True)
        }
    except Unsupported as error:
        raise Unsupported(f"{where}: {error.message}") from error
    except _MISFITS as error:
        raise ArtifactError(f"{where}: {error}") from error
    if not operation.is_constant:
        return named
    for value in operation.outputs:
        operation.folded[value.name] = Constant(value.type, _array(named[value.name]))
    return operation.folded


def _computed(
    operation: Operation, values: Values, context: Context, where: str
) -> tuple[Array | Half, ...]:
    structural = _STRUCTURAL.get(operation.type)
    if structural is not None:
        return structural(operation, values, context)
    if operation.blocks:
        raise ValueError("nested blocks in an operation that has none")
    implementation = OPERATIONS.get(operation.type)
    if any(value.type.dtype == "fp16" for value in operation.outputs):
        implementation = context.replaced.get(operation.type, implementation)
    if implementation is None:
        # If Core ML does not have it at this opset, the file is invalid.
        known = FIRST_OPSET.get(operation.type, context.opset + 1) <= context.opset
        kind = Unsupported if known else ValueError
        raise kind(f"the operation {operation.type!r} is not supported")
    arguments = _arguments(operation, values)
    return call(
        implementation, arguments, context.opset, lambda rule: context.note(f"{where}: {rule}")
    )


def _arguments(operation: Operation, values: Mapping[str, Held]) -> Arguments:
    """Inputs and attributes; which of them contain constants depends on the opset."""
    arguments: dict[str, tuple[Held, ...]] = {
        key: tuple(b if isinstance(b, Constant) else values[b] for b in bindings)
        for key, bindings in operation.inputs.items()
    }
    for key, attribute in operation.attributes.items():
        if key == "name":
            continue
        if key in arguments:
            raise ValueError(f"argument {key} given twice")
        arguments[key] = (attribute,)
    return arguments


def _as_declared(value: Value, result: Kept) -> Kept:
    """The result, after a check of its declared type and shape."""
    declared = dtype_named(value.type.dtype).numpy
    # The length of a string is part of its numpy type.
    same = result.dtype == declared or result.dtype.kind == declared.kind == "U"
    if not same and not (result.dtype.kind == declared.kind == "V"):
        raise ValueError(f"{value.name} is declared {value.type.dtype} but is {result.dtype}")
    if not shape_fits(result.shape, value.type.shape):
        raise ValueError(f"{value.name} is declared {value.type.shape} but is {result.shape}")
    return result


def _nested(block: Block, given: Arrays, values: Values, context: Context) -> Arrays:
    """The outputs of a nested block; its values are not visible outside."""
    if len(block.inputs) != len(given):
        raise ValueError(f"a block of {len(block.inputs)} inputs gets {len(given)}")
    own = {
        value.name: _as_declared(value, array)
        for value, array in zip(block.inputs, given, strict=True)
    }
    return tuple(run_block(block, ChainMap(dict(own), values), context))


def _cond(operation: Operation, values: Values, context: Context) -> Arrays:
    """The outputs of the first block where `pred` is true, else of the second."""
    (pred,) = _only(operation, values, "pred")
    first, second = operation.blocks
    return _nested(first if _truth(pred) else second, (), values, context)


def _while_loop(operation: Operation, values: Values, context: Context) -> Arrays:
    """The variables after running the second block while the first one gives true."""
    variables = _only(operation, values, "loop_vars")
    condition, body = operation.blocks
    while True:
        (goes_on,) = _nested(condition, variables, values, context)
        if not _truth(goes_on):
            return variables
        variables = _nested(body, variables, values, context)


def _read_state(operation: Operation, values: Values, context: Context) -> Arrays:
    return (context.states[_state(operation, context, ("input",))].copy(),)


def _write_state(operation: Operation, values: Values, context: Context) -> Arrays:
    """The state set to `data`; no output."""
    name = _state(operation, context, ("input", "data"))
    (data,) = (
        _array(values[b]) if isinstance(b, str) else b.data for b in operation.inputs["data"]
    )
    kept = context.states[name]
    if data.dtype != kept.dtype or data.shape != kept.shape:
        raise ValueError(
            f"{data.dtype} {data.shape} for the state {name} of {kept.dtype} {kept.shape}"
        )
    context.states[name] = data.copy()
    return ()


def _state(operation: Operation, context: Context, takes: tuple[str, ...]) -> str:
    """The name of the state of an operation."""
    if sorted(operation.inputs) != sorted(takes):
        raise ValueError(f"arguments {sorted(operation.inputs)}, not {sorted(takes)}")
    (name,) = operation.inputs["input"]
    if not isinstance(name, str) or name not in context.states:
        raise ValueError("argument 'input' is not a state")
    return name


def _only(operation: Operation, values: Values, key: str) -> Arrays:
    """The values of the operation's only argument."""
    arguments = _arguments(operation, values)
    if list(arguments) != [key]:
        raise ValueError(f"arguments {sorted(arguments)}, not {key!r}")
    return tuple(_array(held) for held in arguments[key])


def _truth(array: Array) -> bool:
    if array.dtype != np.bool_ or array.size != 1:
        raise ValueError(f"a condition that is {array.dtype} of shape {array.shape}")
    return bool(array)


# Operations that run blocks or use states, and therefore need all values.
_STRUCTURAL: dict[str, Callable[[Operation, Values, Context], Arrays]] = {
    "cond": _cond,
    "read_state": _read_state,
    "while_loop": _while_loop,
    "write_state": _write_state,
}
