"""Widens a float16 Core ML package to float32 arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from slide_deploy.protocols import RoundedTensor
from slide_deploy.validators._quantized.coreml import models_side_by_side, read_from_restored
from slide_deploy.validators._widened.pairs import paired

__all__ = ["widen"]

# The numbers of float16 and float32 in MIL.proto.
HALF, SINGLE = 10, 11


def widen(path: Path, program: Path, restored: Path) -> Iterator[RoundedTensor]:
    """See `Runtime.widen`."""
    from slide_deploy.validators import _mil

    halves, singles = (_constants(_mil.read_package(own)) for own in (path, program))
    artifact, origin, target = models_side_by_side(path, program, restored)
    messages = {op.outputs[0].name: op for op in _block(origin).operations if op.type == "const"}
    block = _block(artifact)
    taken: dict[str, Any] = {}
    for op, alike in paired(_operations(block), _operations(_block(origin))):
        for key, own, other in _arguments(op, alike):
            half, single = _array(own, halves), _array(other, singles)
            if half is None or single is None:
                continue
            yield RoundedTensor(other.name or f"{op.outputs[0].name}, {key}", half, single)
            # Where two weights became one, each reader gets its own again.
            name = f"{own.name}__{other.name}" if other.name else ""
            own.CopyFrom(other)
            if name:
                own.name = name
                taken[name] = messages[other.name]
    _replace_constants(block, taken)
    _widen_types(block)
    target.write_bytes(artifact.SerializeToString(deterministic=True))


def _block(model: Any) -> Any:
    (function,) = model.mlProgram.functions.values()
    return function.block_specializations[function.opset]


def _operations(block: Any) -> list[tuple[str, Any]]:
    return [(op.type, op) for op in block.operations if op.type not in ("const", "cast")]


def _constants(program: Any) -> dict[str, np.ndarray]:
    """The floating-point constants by name."""
    values = {op.name: op.attributes["val"].data for op in program.operations if op.type == "const"}
    return {name: value for name, value in values.items() if value.dtype.kind == "f"}


def _arguments(op: Any, alike: Any) -> Iterator[tuple[str, Any, Any]]:
    """The arguments that both operations have, with their key."""
    for key in op.inputs:
        pairs = zip(op.inputs[key].arguments, alike.inputs[key].arguments, strict=False)
        yield from ((key, own, other) for own, other in pairs)


def _array(argument: Any, constants: dict[str, np.ndarray]) -> np.ndarray | None:
    """The floating-point constant that an argument is."""
    from slide_deploy.validators._mil.decoding import constant

    if argument.WhichOneof("binding") == "name":
        return constants.get(argument.name)
    if argument.value.WhichOneof("value") != "immediateValue":
        return None
    value = constant(argument.value, "an argument", _no_blob).data
    return value if value.dtype.kind == "f" else None


def _no_blob(*_: object) -> np.ndarray:
    raise AssertionError("an immediate value is in no file")


def _replace_constants(block: Any, taken: dict[str, Any]) -> None:
    """The constants `taken`, by new names, before all operations; those that nothing reads go."""
    operations = [type(op).FromString(op.SerializeToString()) for op in block.operations]
    read = {a.name for op in operations for value in op.inputs.values() for a in value.arguments}
    del block.operations[:]
    for name, constant in taken.items():
        op = block.operations.add()
        op.CopyFrom(constant)
        op.outputs[0].name = name
        read_from_restored(op)
    block.operations.extend(
        op for op in operations if op.type != "const" or op.outputs[0].name in read
    )


def _widen_types(block: Any) -> None:
    """float32 in place of float16, in the types of results and where casts name it."""
    for op in block.operations:
        for value in (*op.attributes.values(), *_immediate(op)):
            tensor = value.immediateValue.tensor
            if tensor.WhichOneof("value") == "strings":
                named = ["fp32" if text == "fp16" else text for text in tensor.strings.values]
                tensor.strings.values[:] = named
        if op.type != "const":
            for output in op.outputs:
                if output.type.tensorType.dataType == HALF:
                    output.type.tensorType.dataType = SINGLE


def _immediate(op: Any) -> Iterator[Any]:
    for argument in op.inputs.values():
        yield from (own.value for own in argument.arguments if own.HasField("value"))
