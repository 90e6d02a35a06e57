"""The same program in float32: what is left of a difference is not the rounding of float16."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from slide_deploy.validators._mil import (
    Block,
    Constant,
    Feature,
    Operation,
    Program,
    TensorType,
    Value,
)
from slide_deploy.validators._mil.program import walk

__all__ = ["holds_float16", "in_float32"]


def holds_float16(program: Program) -> bool:
    """Whether any value or constant of the program is of float16."""
    return any(kind.dtype == "fp16" for kind in _types(program))


def _types(program: Program) -> Iterator[TensorType]:
    yield from (value.type for value in program.arguments)
    for operation in walk(program.operations):
        yield from (value.type for value in operation.outputs)
        for bindings in (*operation.inputs.values(), operation.attributes.values()):
            yield from (b.type for b in bindings if isinstance(b, Constant))


def in_float32(program: Program) -> Program:
    """The program with every float16 type, constant and cast made one of float32."""
    return replace(
        program,
        inputs=tuple(map(_feature, program.inputs)),
        outputs=tuple(map(_feature, program.outputs)),
        arguments=tuple(map(_value, program.arguments)),
        operations=tuple(map(_operation, program.operations)),
        states=tuple(map(_value, program.states)),
    )


def _dtype(name: str) -> str:
    return "fp32" if name == "fp16" else name


def _feature(feature: Feature) -> Feature:
    return replace(feature, dtype=_dtype(feature.dtype))


def _value(value: Value) -> Value:
    return Value(value.name, TensorType(_dtype(value.type.dtype), value.type.shape))


def _constant(constant: Constant) -> Constant:
    data = constant.data
    if data.dtype == np.float16:
        data = data.astype(np.float32)
    elif data.shape == () and data.dtype.kind == "U":  # the `dtype` of a cast
        data = np.array(_dtype(data.item()))
    return Constant(TensorType(_dtype(constant.type.dtype), constant.type.shape), data)


def _operation(operation: Operation) -> Operation:
    return Operation(
        operation.type,
        {
            key: tuple(b if isinstance(b, str) else _constant(b) for b in bindings)
            for key, bindings in operation.inputs.items()
        },
        tuple(map(_value, operation.outputs)),
        {key: _constant(constant) for key, constant in operation.attributes.items()},
        tuple(map(_block, operation.blocks)),
    )


def _block(block: Block) -> Block:
    operations = tuple(map(_operation, block.operations))
    return Block(tuple(map(_value, block.inputs)), operations, block.outputs)
