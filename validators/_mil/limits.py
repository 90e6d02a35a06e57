"""Finds reasons for which Core ML itself would refuse a well-formed program."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from slide_deploy.errors import ArtifactError
from slide_deploy.validators._mil.dtypes import dtype_named
from slide_deploy.validators._mil.evaluation import evaluate
from slide_deploy.validators._mil.opsets import FIRST_OPSET, NEWEST_OPSET, SERIALIZED_OPSET
from slide_deploy.validators._mil.program import (
    Feature,
    Operation,
    Program,
    Unsupported,
    Value,
    walk,
)
from slide_deploy.validators._mil.requirements import (
    SPEC_AHEAD,
    feature_spec,
    operation_requirements,
)

__all__ = ["violations"]

_MAX_RANK = 5
_CUSTOM = ("custom", "custom_layer")
# What a classifier gives.
_LABELS = ("string", "int64", "dictionary<string, fp64>", "dictionary<int64, fp64>")


def violations(program: Program) -> list[str]:
    """One line for each violated limit; empty if Core ML should accept the program."""
    try:
        opset = program.opset_number
    except ArtifactError as error:
        return [error.message]
    found = list(_versions(program, opset))
    for feature in program.inputs:
        found += _feature(feature, program.spec_version)
    for feature in program.outputs:
        if feature.dtype not in _LABELS:
            found += _feature(feature, program.spec_version)
    for value in program.arguments:
        found += _value(value)
    for value in program.states:
        if value.type.dtype != "fp16":
            found.append(f"the state {value.name} is {value.type.dtype}; Core ML only accepts fp16")
        found += _value(value)
    for operation in walk(program.operations):
        found += _operation(operation, opset)
    return found or list(_default_shapes(program))


def _default_shapes(program: Program) -> Iterator[str]:
    """Operands of `stack` that differ at the default shapes of the inputs.

    When Core ML loads a model, it computes shapes from the default shapes of its inputs. Apple's
    tests state that a `stack` of different ones is refused then. Nothing else is reported, because
    they also run programs in which those of `linear` and `slice_update` do not fit, or in which an
    index is too large. A program with fixed shapes declares them. One with flexible shapes is run
    here on zeros and, as shapes may depend on values, on ones. The values of a vector of integers
    may be a shape, of which nothing is known.
    """
    if not any(feature.shapes or feature.ranges for feature in program.inputs):
        return
    if any(f.dtype == "int32" and len(f.shape or ()) < 2 for f in program.inputs):
        return
    message = ""
    for fill in (0, 1):
        feeds = {
            feature.name: np.full(_sizes(feature), fill, dtype_named(feature.dtype).numpy)
            for feature in program.inputs
        }
        try:
            evaluate(program, feeds)
        except Unsupported:
            return
        except ArtifactError as error:
            if not error.message.startswith("stack "):
                return
            message = error.message
        else:
            return
    yield f"at the default shapes of the inputs: {message}"


def _sizes(feature: Feature) -> tuple[int, ...]:
    return tuple(1 if size is None else size for size in feature.shape or ())


def _versions(program: Program, opset: int) -> Iterator[str]:
    if opset not in range(min(FIRST_OPSET.values()), NEWEST_OPSET + 1):
        yield f"the opset {program.opset} is not one of CoreML5 to CoreML{NEWEST_OPSET}"
    if program.spec_version < opset + SPEC_AHEAD:
        yield (
            f"specification version {program.spec_version} is older than the opset"
            f" {program.opset}, which needs {opset + SPEC_AHEAD}"
        )


def _feature(feature: Feature, spec_version: int) -> Iterator[str]:
    needed = feature_spec(feature)
    if needed is None:
        yield f"{feature.name} is {feature.dtype}, which is not valid for inputs and outputs"
    elif spec_version < needed:
        yield f"{feature.name} is {feature.dtype}, which needs specification version {needed}"


def _value(value: Value) -> Iterator[str]:
    if value.type.shape is None:
        yield f"{value.name} is of unknown rank"
    elif len(value.type.shape) > _MAX_RANK:
        yield f"{value.name} is of rank {len(value.type.shape)}, more than {_MAX_RANK}"


def _operation(operation: Operation, opset: int) -> Iterator[str]:
    where = f"{operation.type} {operation.name}"
    if operation.type in _CUSTOM:
        yield f"{where} is a custom layer"
    elif operation.type not in FIRST_OPSET | SERIALIZED_OPSET:
        yield f"{where} is not a MIL operation"
    for what, first in operation_requirements(operation):
        if first > opset:
            yield f"{where}{what} needs CoreML{first}, the program is CoreML{opset}"
    # Weights before decompression may have more dimensions: a palette has two on top. A rank
    # may be unknown: Core ML runs `fill` and `reshape` by a shape of unknown length.
    if not operation.is_constant:
        for value in operation.outputs:
            if value.type.shape is not None:
                yield from _value(value)
