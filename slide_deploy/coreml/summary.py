"""What a Core ML package holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slide_deploy.utils.files import size_of
from slide_deploy.validators._mil import (
    SYSTEMS,
    Feature,
    Program,
    Value,
    first_opset,
    histogram,
    read_package,
)

__all__ = [
    "FunctionSummary",
    "PackageSummary",
    "ValueSummary",
    "feature_shape",
    "summarize",
    "type_name",
]

_TYPES = {"fp16": "float16", "fp32": "float32", "fp64": "float64"}


@dataclass(frozen=True)
class ValueSummary:
    """An input, output or state; a free dimension is written as its range, such as `1..64`."""

    name: str
    role: str
    type: str
    shape: tuple[str, ...]


@dataclass(frozen=True)
class FunctionSummary:
    """One function: its values, and how often it uses each operation."""

    name: str
    default: bool
    opset: str
    values: tuple[ValueSummary, ...]
    operations: Mapping[str, int]


@dataclass(frozen=True)
class PackageSummary:
    """A package: the systems that run it, from the oldest on, and its functions."""

    path: str
    size_bytes: int
    deployment_target: str
    specification_version: int
    description: str
    metadata: Mapping[str, str]
    functions: tuple[FunctionSummary, ...]


def summarize(path: Path) -> PackageSummary:
    """Read all functions of a package.

    Raises:
        ArtifactError: the package is damaged, or holds something else than an ML program.
    """
    default = read_package(path)
    programs = [
        default if name == default.function else read_package(path, name)
        for name in default.functions
    ]
    return PackageSummary(
        path=path.name,
        size_bytes=size_of(path),
        deployment_target=", ".join(SYSTEMS.get(max(map(first_opset, programs)), ("unknown",))),
        specification_version=default.spec_version,
        description=default.description,
        metadata=dict(default.metadata),
        functions=tuple(_function(program, default.function) for program in programs),
    )


def type_name(dtype: str) -> str:
    """numpy's name of a MIL element type."""
    return _TYPES.get(dtype, dtype)


def _function(program: Program, default: str) -> FunctionSummary:
    values = [_feature("input", feature) for feature in program.inputs]
    values += [_state(value) for value in program.states]
    values += [_feature("output", feature) for feature in program.outputs]
    return FunctionSummary(
        name=program.function,
        default=program.function == default,
        opset=program.opset,
        values=tuple(values),
        operations=histogram(program),
    )


def _feature(role: str, feature: Feature) -> ValueSummary:
    kind = f"{feature.image} image" if feature.image else type_name(feature.dtype)
    return ValueSummary(feature.name, role, kind, feature_shape(feature))


def _state(value: Value) -> ValueSummary:
    shape = tuple(map(str, value.type.shape or ()))
    return ValueSummary(value.name, "state", type_name(value.type.dtype), shape)


def feature_shape(feature: Feature) -> tuple[str, ...]:
    """The sizes an input or output may have, along each dimension."""
    if feature.ranges:
        return tuple(
            str(low) if low == high else f"{low}..{'' if high is None else high}"
            for low, high in feature.ranges
        )
    if feature.shapes:
        sizes = zip(*feature.shapes, strict=True)
        return tuple("|".join(dict.fromkeys(map(str, size))) for size in sizes)
    return tuple("?" if size is None else str(size) for size in feature.shape or ())
