"""Takes a quantized Core ML package apart."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slide_deploy.errors import ArtifactError, NotSupported
from slide_deploy.protocols import Arrays, QuantizedTensor
from slide_deploy.validators._quantized.coreml_activations import (
    activation_tensors,
    remove_quantization,
)

if TYPE_CHECKING:
    from slide_deploy.validators import _mil

__all__ = [
    "COMPRESSED",
    "compressed_weights",
    "models_side_by_side",
    "read_from_restored",
    "take_apart",
]

LINEAR = ("constexpr_affine_dequantize", "constexpr_blockwise_shift_scale")
PALETTE = "constexpr_lut_to_dense"
COMPRESSED = (*LINEAR, PALETTE)

# The weights of the float package, beside those of the compressed one.
WEIGHTS, RESTORED = "weights/weight.bin", "weights/restored.bin"


def take_apart(
    path: Path, program: Path, restored: Path, runs: Iterable[Arrays]
) -> Iterator[QuantizedTensor]:
    """See `Runtime.take_apart`. Raises ArtifactError where `path` compresses what the float package
    `program` does not have, or has other numbers where nothing is compressed."""
    from slide_deploy.validators import _mil

    artifact, origin = _mil.read_package(path), _mil.read_package(program)
    compressed = compressed_weights(artifact)
    constants = {op.name: op for op in origin.operations if op.type == "const"}
    readers = {reader: name for reader, name in _readers(origin) if name in constants}
    _compare_constants(artifact, readers, constants)
    # coremltools merges equal weights: one of the artifact may stand for several.
    originals: dict[str, dict[str, None]] = {}
    for reader, name in _readers(artifact):
        if name in compressed:
            found = readers.get(reader, "")
            if not _alike(compressed[name], constants.get(found)):
                raise ArtifactError(
                    f"the float package has no weights of the shape of {name} in its place",
                    "verify it with the options that it was exported with",
                )
            originals.setdefault(name, {})[found] = None
    _write_restored(path, program, restored, {n: next(iter(o)) for n, o in originals.items()})
    activations = list(activation_tensors(artifact, origin, runs))
    for name, found_by in originals.items():
        for original in found_by:
            weights = np.asarray(constants[original].attributes["val"].data, np.float32)
            yield _tensor(original, compressed[name], weights)
    yield from activations


def compressed_weights(program: _mil.Program) -> dict[str, _mil.Operation]:
    """The operations that decompress weights, by the name of their result."""
    return {op.name: op for op in program.operations if op.type in COMPRESSED}


def _readers(program: _mil.Program) -> Iterator[tuple[tuple[str, str, int], str]]:
    """Each argument that is a value: its operation, name and number, and the value's name."""
    for op in program.operations:
        for key, bindings in op.inputs.items():
            for index, binding in enumerate(bindings):
                if isinstance(binding, str):
                    yield (op.name, key, index), binding


def _compare_constants(
    artifact: _mil.Program,
    readers: Mapping[tuple[str, str, int], str],
    constants: Mapping[str, _mil.Operation],
) -> None:
    """Raise ArtifactError unless uncompressed numbers are those of the float package."""
    own = {op.name: op for op in artifact.operations if op.type == "const"}
    for reader, name in _readers(artifact):
        if name in own and reader in readers:
            value, meant = (
                op.attributes["val"].data for op in (own[name], constants[readers[reader]])
            )
            # Whole numbers, such as axes, may be written otherwise.
            if value.dtype.kind == "f" and not np.array_equal(value, meant):
                raise ArtifactError(
                    f"{name} has other numbers than {readers[reader]} of the float package",
                    "export it again",
                )


def _alike(op: _mil.Operation, original: _mil.Operation | None) -> bool:
    return original is not None and op.outputs[0].type == original.outputs[0].type


def _tensor(name: str, op: _mil.Operation, weights: np.ndarray) -> QuantizedTensor:
    given = _constants(op)
    if op.type == PALETTE:
        palette = np.asarray(given["lut"], np.float32).reshape(-1)
        if palette.size != 256 or op.outputs[0].type.shape != weights.shape:
            raise NotSupported(f"{name} has {palette.size} palette values, not one palette of 256")
        return QuantizedTensor(
            name=name,
            kind="palette",
            low=0,
            high=255,
            scale=np.ones(1),
            zero_point=np.zeros(1),
            integers=np.asarray(given["indices"]).reshape(weights.shape).astype(np.uint8),
            weights=weights,
            palette=palette,
        )
    integers = np.asarray(given["quantized_data" if op.type == LINEAR[0] else "data"])
    scale = np.asarray(given["scale"])
    zero_point = given.get("zero_point", given.get("offset"))
    axis = _axis(name, scale, integers, given.get("axis"))
    return QuantizedTensor(
        name=name,
        kind=integers.dtype.name,
        low=int(np.iinfo(integers.dtype).min),
        high=int(np.iinfo(integers.dtype).max),
        scale=scale.reshape(-1),
        zero_point=np.broadcast_to(
            np.zeros(1, np.int8) if zero_point is None else zero_point.reshape(-1), (scale.size,)
        ),
        axis=axis,
        integers=integers,
        weights=weights,
    )


def _constants(op: _mil.Operation) -> dict[str, np.ndarray]:
    """The arguments of an operation on constants, which are attributes before iOS 18."""
    inputs = {key: value for key, (value,) in op.inputs.items() if not isinstance(value, str)}
    return {key: value.data for key, value in (inputs | dict(op.attributes)).items()}


def _axis(name: str, scale: np.ndarray, integers: np.ndarray, declared: Any) -> int:
    """The axis along which there is a scale for each index."""
    if declared is not None:
        return int(declared) % integers.ndim
    axes = [axis for axis, size in enumerate(scale.shape) if size > 1]
    if len(axes) > 1:
        raise NotSupported(f"{name} has scales for blocks, not for channels")
    return axes[0] if axes else 0


def _write_restored(
    path: Path, program: Path, restored: Path, originals: Mapping[str, str]
) -> None:
    """The package with the float package's constants in place of compressed weights, and without
    quantized activations."""
    model, origin, target = models_side_by_side(path, program, restored)
    constants = {op.outputs[0].name: op for op in _operations(origin) if op.type == "const"}
    for op in _operations(model):
        if op.outputs and op.outputs[0].name in originals:
            output = op.outputs[0].name
            op.CopyFrom(constants[originals[output]])
            op.outputs[0].name = output
            read_from_restored(op)
    for function in model.mlProgram.functions.values():
        remove_quantization(function.block_specializations[function.opset])
    target.write_bytes(model.SerializeToString(deterministic=True))


def models_side_by_side(path: Path, program: Path, restored: Path) -> tuple[Any, Any, Path]:
    """Copy the package `path` to `restored`, with the weights of `program` in a file beside its
    own; returns the model messages of both packages, and the model file of the copy."""
    from slide_deploy.validators._mil.package import open_package
    from slide_deploy.validators._mil.schema import parse_model

    shutil.copytree(path, restored)
    source, target = open_package(program).model, open_package(restored).model
    if (source.parent / WEIGHTS).exists():
        shutil.copyfile(source.parent / WEIGHTS, target.parent / RESTORED)
    model, origin = (parse_model(file.read_bytes(), file.name) for file in (target, source))
    return model, origin, target


def read_from_restored(op: Any) -> None:
    """Let a constant of the float package be read from the file with its weights."""
    if op.attributes["val"].WhichOneof("value") == "blobFileValue":
        op.attributes["val"].blobFileValue.fileName = f"@model_path/{RESTORED}"


def _operations(model: Any) -> Iterator[Any]:
    for function in model.mlProgram.functions.values():
        yield from function.block_specializations[function.opset].operations
