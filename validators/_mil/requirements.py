"""Which system first has what a program uses."""

from __future__ import annotations

from collections.abc import Iterator

from slide_deploy.validators._mil.opsets import (
    FIRST_ARGUMENT_OPSET,
    FIRST_OPSET,
    SERIALIZED_OPSET,
)
from slide_deploy.validators._mil.program import Feature, Operation, Program, walk

__all__ = [
    "SPEC_AHEAD",
    "SYSTEMS",
    "feature_spec",
    "first_opset",
    "operation_requirements",
    "requirements",
]

# Specification version 6 came with CoreML5, and each since with the next.
SPEC_AHEAD = 1
# The systems that brought each opset.
SYSTEMS = {
    5: ("iOS15", "macOS12", "watchOS8", "tvOS15"),
    6: ("iOS16", "macOS13", "watchOS9", "tvOS16"),
    7: ("iOS17", "macOS14", "watchOS10", "tvOS17"),
    8: ("iOS18", "macOS15", "watchOS11", "tvOS18"),
    9: ("iOS26", "macOS26", "watchOS26", "tvOS26"),
}
# An fp16 input or output needs iOS 16, an int8 one iOS 26, a grayscale image of uint8 iOS 17;
# the others are what a classifier gives.
_FEATURE_SPEC = {"fp32": 6, "int32": 6, "fp64": 6, "fp16": 7, "int8": 10}
_UINT8_IMAGE_SPEC = 8


def first_opset(program: Program) -> int:
    """The opset of the oldest systems that load the program."""
    return max(program.opset_number, program.spec_version - SPEC_AHEAD)


def requirements(program: Program) -> Iterator[tuple[str, int]]:
    """The format, and each operation, argument, input and output; with the first opset of each."""
    yield f"specification version {program.spec_version}", program.spec_version - SPEC_AHEAD
    yield f"opset {program.opset}", program.opset_number
    for role, features in (("input", program.inputs), ("output", program.outputs)):
        for feature in features:
            spec = feature_spec(feature)
            if spec is not None:
                yield f"{feature.dtype} {role}", spec - SPEC_AHEAD
    for operation in walk(program.operations):
        for what, first in operation_requirements(operation):
            yield f"{operation.type}{what}", first


def operation_requirements(operation: Operation) -> Iterator[tuple[str, int]]:
    """The operation ("") and its arguments (": argument NAME"), with their first opsets."""
    first = (FIRST_OPSET | SERIALIZED_OPSET).get(operation.type)
    if first is not None:
        yield "", first
    for key in (*operation.inputs, *operation.attributes):
        if needed := FIRST_ARGUMENT_OPSET.get((operation.type, key)):
            yield f": argument {key}", needed


def feature_spec(feature: Feature) -> int | None:
    """The first specification version that has a feature's type; None where none has."""
    if feature.image and feature.dtype == "uint8":
        return _UINT8_IMAGE_SPEC
    return _FEATURE_SPEC.get(feature.dtype)
