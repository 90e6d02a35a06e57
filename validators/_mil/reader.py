"""From a `.mlpackage` on disk to a Program, refusing whatever is not understood."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from slide_deploy.errors import ArtifactError
from slide_deploy.validators._mil import blob
from slide_deploy.validators._mil.decoding import ReadBlob, constant, tensor_type
from slide_deploy.validators._mil.dtypes import Array
from slide_deploy.validators._mil.features import feature
from slide_deploy.validators._mil.package import file_of, open_package
from slide_deploy.validators._mil.program import Constant, Feature, Operation, Program, Value
from slide_deploy.validators._mil.schema import parse_model

__all__ = ["read_package"]


def read_package(path: Path) -> Program:
    """The program in a `.mlpackage`, with every weight it names read and checked."""
    package = open_package(path)
    model = parse_model(package.model.read_bytes(), package.model.name)
    kind = model.WhichOneof("Type")
    if kind != "mlProgram":
        raise ArtifactError(f"{path.name} holds a Core ML {kind or 'model of no type'}")
    function, block = _main(model, path.name)

    @cache
    def blob_named(name: str) -> blob.Blob:
        return blob.open_blob(file_of(package, name))

    def read_blob(name: str, offset: int, dtype: str, shape: tuple[int, ...]) -> Array:
        return blob.tensor(blob_named(name), offset, dtype, shape)

    arguments = tuple(Value(v.name, tensor_type(v.type, v.name)) for v in function.inputs)
    operations = tuple(_operation(message, read_blob) for message in block.operations)
    defined = _defined(arguments, operations)
    description = model.description
    return Program(
        inputs=_features(description.input, [v.name for v in arguments], defined, "input"),
        outputs=_features(description.output, list(block.outputs), defined, "output"),
        arguments=arguments,
        operations=operations,
        opset=function.opset,
        spec_version=model.specificationVersion,
        metadata=dict(description.metadata.userDefined),
        description=description.metadata.shortDescription,
    )


def _main(model: Any, name: str) -> tuple[Any, Any]:
    """The only function and its active block."""
    functions = model.mlProgram.functions
    if list(functions) != ["main"]:
        raise ArtifactError(f"{name}: functions {sorted(functions)}, only a single main is read")
    function = functions["main"]
    if function.opset not in function.block_specializations:
        raise ArtifactError(f"{name}: no block for the opset {function.opset!r} it asks for")
    if len(model.description.state):
        raise ArtifactError(f"{name}: a model with state is not supported")
    block = function.block_specializations[function.opset]
    if len(block.inputs):
        raise ArtifactError(f"{name}: a main block with inputs of its own is not supported")
    return function, block


def _operation(message: Any, read_blob: ReadBlob) -> Operation:
    outputs = tuple(Value(v.name, tensor_type(v.type, v.name)) for v in message.outputs)
    where = f"{message.type} {outputs[0].name if outputs else ''}".strip()
    inputs = {
        key: tuple(_binding(b, f"{where}, argument {key}", read_blob) for b in argument.arguments)
        for key, argument in message.inputs.items()
    }
    attributes = {
        key: constant(value, f"{where}, attribute {key}", read_blob)
        for key, value in message.attributes.items()
    }
    return Operation(message.type, inputs, outputs, attributes, len(message.blocks))


def _binding(message: Any, where: str, read_blob: ReadBlob) -> str | Constant:
    kind = message.WhichOneof("binding")
    if kind == "name":
        return str(message.name)
    if kind == "value":
        return constant(message.value, where, read_blob)
    raise ArtifactError(f"{where} is bound to nothing")


def _defined(arguments: tuple[Value, ...], operations: tuple[Operation, ...]) -> dict[str, Value]:
    """Every value by name; each must be made once, and before it is used."""
    defined: dict[str, Value] = {}

    def define(value: Value) -> None:
        if value.name in defined:
            raise ArtifactError(f"the value {value.name!r} is defined twice")
        defined[value.name] = value

    for value in arguments:
        define(value)
    for operation in operations:
        for key, bindings in operation.inputs.items():
            for binding in bindings:
                if isinstance(binding, str) and binding not in defined:
                    raise ArtifactError(
                        f"{operation.type} {operation.name}: argument {key} is {binding!r},"
                        " which nothing before it defines"
                    )
        for value in operation.outputs:
            define(value)
    return defined


def _features(
    messages: Any, names: list[str], defined: dict[str, Value], what: str
) -> tuple[Feature, ...]:
    """The described features, which must be the program's own."""
    described = [message.name for message in messages]
    if sorted(described) != sorted(names):
        raise ArtifactError(f"{what}s described {described}, in the program {names}")
    missing = [name for name in names if name not in defined]
    if missing:
        raise ArtifactError(f"{what} {missing[0]!r} is not defined in the program")
    return tuple(feature(message, defined[message.name]) for message in messages)
