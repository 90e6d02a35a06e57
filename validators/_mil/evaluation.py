"""Run a program in numpy, every result rounded to and checked against its declared type."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from slide_deploy.errors import ArtifactError
from slide_deploy.validators._mil.dtypes import Array, dtype_named
from slide_deploy.validators._mil.ops import OPERATIONS, Arguments, call
from slide_deploy.validators._mil.program import (
    Constant,
    Feature,
    Operation,
    Program,
    Value,
    shape_fits,
)

__all__ = ["Observer", "evaluate"]

Observer = Callable[[str, Array], None]

# What numpy and our own functions raise on arguments that do not fit each other.
_MISFITS = (ValueError, IndexError, TypeError, ZeroDivisionError, OverflowError)


def evaluate(
    program: Program, feeds: Mapping[str, Array], observe: Observer | None = None
) -> dict[str, Array]:
    """The outputs by name; `observe` is shown every computed value, in order."""
    values = _accepted(program, feeds)
    last_uses = _last_uses(program)
    for index, operation in enumerate(program.operations):
        for name, result in _results(operation, values, program.opset_number):
            values[name] = result
            if observe is not None and operation.type != "const":
                observe(name, result)
        for name in last_uses.get(index, ()):
            del values[name]
    return {output.name: _output(output, values[output.name]) for output in program.outputs}


def _accepted(program: Program, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The feeds, once each is an input of the right type and of a shape it may have."""
    names = [feature.name for feature in program.inputs]
    if sorted(feeds) != sorted(names):
        raise ArtifactError(f"inputs given {sorted(feeds)}, the program takes {sorted(names)}")
    declared = {value.name: value.type for value in program.arguments}
    for feature in program.inputs:
        array = feeds[feature.name]
        if array.dtype != dtype_named(feature.dtype).numpy:
            raise ArtifactError(f"input {feature.name}: {array.dtype} given, not {feature.dtype}")
        if not (
            feature.accepts(array.shape) and shape_fits(array.shape, declared[feature.name].shape)
        ):
            raise ArtifactError(f"input {feature.name}: shape {array.shape} is not accepted")
    return dict(feeds)


def _output(feature: Feature, array: Array) -> Array:
    """A copy the caller may keep: the value itself can be a view of a feed or a weight."""
    if not feature.accepts(array.shape):
        raise ArtifactError(f"output {feature.name}: shape {array.shape} is not as described")
    return array.copy()


def _last_uses(program: Program) -> dict[int, list[str]]:
    """Operation index -> the values nobody needs after it."""
    last: dict[str, int] = {}
    for index, operation in enumerate(program.operations):
        last.update((value.name, index) for value in operation.outputs)
        for bindings in operation.inputs.values():
            last.update((binding, index) for binding in bindings if isinstance(binding, str))
    for output in program.outputs:
        last.pop(output.name, None)
    uses: dict[int, list[str]] = {}
    for name, index in last.items():
        uses.setdefault(index, []).append(name)
    return uses


def _results(
    operation: Operation, values: Mapping[str, Array], opset: int
) -> list[tuple[str, Array]]:
    """What one operation computes, with the names of its outputs."""
    where = f"{operation.type} {operation.name}"
    if operation.blocks:
        raise ArtifactError(f"{where}: an operation with nested blocks is not supported")
    implementation = OPERATIONS.get(operation.type)
    if implementation is None:
        raise ArtifactError(f"{where}: the operation {operation.type!r} is not supported")
    arguments = _arguments(operation, values)
    try:
        # Overflow to infinity is what the program says; it is compared, not hidden.
        with np.errstate(all="ignore"):
            results = call(implementation, arguments, opset)
            if len(results) != len(operation.outputs):
                raise ValueError(f"{len(operation.outputs)} outputs declared, not {len(results)}")
            return [
                (value.name, _as_declared(value, result))
                for value, result in zip(operation.outputs, results, strict=True)
            ]
    except _MISFITS as error:
        raise ArtifactError(f"{where}: {error}") from error


def _arguments(operation: Operation, values: Mapping[str, Array]) -> Arguments:
    """Inputs and attributes alike: constants stand under either, by opset."""
    arguments = {
        key: tuple(b.data if isinstance(b, Constant) else values[b] for b in bindings)
        for key, bindings in operation.inputs.items()
    }
    for key, attribute in operation.attributes.items():
        if key == "name":
            continue
        if key in arguments:
            raise ArtifactError(f"{operation.type} {operation.name}: argument {key} given twice")
        arguments[key] = (attribute.data,)
    return arguments


def _as_declared(value: Value, result: Array) -> Array:
    """The result, which must be of the type and shape the program declares."""
    declared = dtype_named(value.type.dtype).numpy
    # A numpy string has its length in its type.
    if result.dtype != declared and not result.dtype.kind == declared.kind == "U":
        raise ValueError(f"{value.name} is declared {value.type.dtype} but is {result.dtype}")
    if not shape_fits(result.shape, value.type.shape):
        raise ValueError(f"{value.name} is declared {value.type.shape} but is {result.shape}")
    return result
