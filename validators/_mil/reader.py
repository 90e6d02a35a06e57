"""Reads a `.mlpackage` from disk as a Program, and refuses unknown content."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from slide_deploy.errors import ArtifactError
from slide_deploy.validators._mil import blob
from slide_deploy.validators._mil.decoding import ReadBlob, constant, tensor_type
from slide_deploy.validators._mil.dtypes import Array
from slide_deploy.validators._mil.features import feature, state
from slide_deploy.validators._mil.package import file_of, open_package
from slide_deploy.validators._mil.program import Block, Constant, Feature, Operation, Program, Value
from slide_deploy.validators._mil.schema import parse_model

__all__ = ["read_package"]


def read_package(path: Path, function: str | None = None) -> Program:
    """Read and check a function of the program in a `.mlpackage`, including its weights.

    function: its name; by default the package's default function, or `main` if it is the only one.
    """
    package = open_package(path)
    model = parse_model(package.model.read_bytes(), package.model.name)
    kind = model.WhichOneof("Type")
    if kind != "mlProgram":
        raise ArtifactError(f"{path.name} holds a Core ML {kind or 'model of no type'}")
    name, description = _described(model, function, path.name)
    chosen, block = _function(model.mlProgram.functions, name, path.name)

    @cache
    def blob_named(name: str) -> blob.Blob:
        return blob.open_blob(file_of(package, name))

    def read_blob(name: str, offset: int, dtype: str, shape: tuple[int, ...]) -> Array:
        return blob.tensor(blob_named(name), offset, dtype, shape)

    kept = [v.type.WhichOneof("type") == "stateType" for v in chosen.inputs]
    values = _values(chosen.inputs)
    arguments = tuple(v for v, is_state in zip(values, kept, strict=True) if not is_state)
    states = {v.name: v for v, is_state in zip(values, kept, strict=True) if is_state}
    scope: dict[str, Value] = {}
    body = _block(block, values, read_blob, scope)
    if sorted(m.name for m in description.state) != sorted(states):
        raise ArtifactError(f"{path.name}: states described that are not those of the program")
    return Program(
        inputs=_features(description.input, [v.name for v in arguments], scope, "input"),
        outputs=_features(description.output, list(body.outputs), scope, "output"),
        arguments=arguments,
        operations=body.operations,
        opset=chosen.opset,
        spec_version=model.specificationVersion,
        metadata=dict(model.description.metadata.userDefined),
        description=model.description.metadata.shortDescription,
        states=tuple(state(message, states[message.name]) for message in description.state),
        function=name,
        functions=tuple(sorted(model.mlProgram.functions)),
        predicted=(description.predictedFeatureName, description.predictedProbabilitiesName),
    )


def _described(model: Any, function: str | None, package: str) -> tuple[str, Any]:
    """The function's name and the message that describes its inputs and outputs."""
    described = {message.name: message for message in model.description.functions}
    default = model.description.defaultFunctionName
    if not described:
        described, default = {"main": model.description}, "main"
    if sorted(described) != sorted(model.mlProgram.functions):
        raise ArtifactError(
            f"{package}: functions described {sorted(described)},"
            f" in the program {sorted(model.mlProgram.functions)}"
        )
    name = default if function is None else function
    if name not in described:
        raise ArtifactError(f"{package} has no function {name!r}, only {sorted(described)}")
    return name, described[name]


def _function(functions: Any, name: str, package: str) -> tuple[Any, Any]:
    """The function and its active block."""
    function = functions[name]
    if function.opset not in function.block_specializations:
        raise ArtifactError(f"{package}: no block for the opset {function.opset!r} it asks for")
    block = function.block_specializations[function.opset]
    if len(block.inputs):
        raise ArtifactError(f"{package}: the block of {name} has inputs of its own")
    return function, block


def _block(
    message: Any, inputs: tuple[Value, ...], read_blob: ReadBlob, scope: dict[str, Value]
) -> Block:
    """A block whose values are added to `scope`; each is defined once, before its first use."""
    for value in inputs:
        _define(value, scope)
    operations = []
    for item in message.operations:
        operation = _operation(item, read_blob, scope)
        for value in operation.outputs:
            _define(value, scope)
        operations.append(operation)
    for name in message.outputs:
        if name not in scope:
            raise ArtifactError(f"output {name!r} is not defined in the program")
    return Block(inputs, tuple(operations), tuple(message.outputs))


def _define(value: Value, scope: dict[str, Value]) -> None:
    if value.name in scope:
        raise ArtifactError(f"the value {value.name!r} is defined twice")
    scope[value.name] = value


def _operation(message: Any, read_blob: ReadBlob, scope: dict[str, Value]) -> Operation:
    """An operation, whose arguments are constants or values of `scope`."""
    outputs = _values(message.outputs)
    where = f"{message.type} {outputs[0].name if outputs else ''}".strip()
    inputs = {
        key: tuple(_binding(b, f"{where}, argument {key}", read_blob) for b in argument.arguments)
        for key, argument in message.inputs.items()
    }
    for key, bindings in inputs.items():
        for binding in bindings:
            if isinstance(binding, str) and binding not in scope:
                raise ArtifactError(
                    f"{where}: argument {key} is {binding!r}, which nothing before it defines"
                )
    attributes = {
        key: constant(value, f"{where}, attribute {key}", read_blob)
        for key, value in message.attributes.items()
    }
    # Values of a nested block are not visible after it.
    blocks = tuple(
        _block(block, _values(block.inputs), read_blob, dict(scope)) for block in message.blocks
    )
    return Operation(message.type, inputs, outputs, attributes, blocks)


def _values(messages: Any) -> tuple[Value, ...]:
    return tuple(Value(v.name, tensor_type(v.type, v.name)) for v in messages)


def _binding(message: Any, where: str, read_blob: ReadBlob) -> str | Constant:
    kind = message.WhichOneof("binding")
    if kind == "name":
        return str(message.name)
    if kind == "value":
        return constant(message.value, where, read_blob)
    raise ArtifactError(f"{where} is bound to nothing")


def _features(
    messages: Any, names: list[str], defined: dict[str, Value], what: str
) -> tuple[Feature, ...]:
    """The described features, which must be those of the program."""
    described = [message.name for message in messages]
    if sorted(described) != sorted(names):
        raise ArtifactError(f"{what}s described {described}, in the program {names}")
    return tuple(feature(message, defined[message.name]) for message in messages)
