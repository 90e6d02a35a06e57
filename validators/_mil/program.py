"""A program as plain data: features, operations and declared types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from slide_deploy.errors import ArtifactError, NotSupported
from slide_deploy.validators._mil.dtypes import Array
from slide_deploy.validators._mil.halves import Half, widened

__all__ = [
    "Block",
    "Constant",
    "Feature",
    "Held",
    "Operation",
    "Program",
    "Shape",
    "TensorType",
    "Unsupported",
    "Value",
    "histogram",
    "shape_fits",
    "walk",
]

Shape = tuple[int | None, ...]


class Unsupported(NotSupported, ValueError):
    """The interpreter does not support the program, which may be valid."""


@dataclass(frozen=True)
class TensorType:
    """Element type and shape; unknown dimensions and shapes of unknown rank are None."""

    dtype: str
    shape: Shape | None


@dataclass(frozen=True)
class Value:
    """A name and its declared type."""

    name: str
    type: TensorType


@dataclass(frozen=True, eq=False)
class Constant:
    """A constant in the package; its array is read-only."""

    type: TensorType
    data: Array
    # The data as an argument of operations, by the kind of argument that it was read as.
    read_as: dict[str, Any] = field(init=False, default_factory=dict, repr=False)

    @cached_property
    def wide(self) -> Array:
        """The data for computation, with float16 converted to float32 once."""
        wide = widened(self.data)
        wide.flags.writeable = False
        return wide

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type of the elements."""
        return self.data.dtype


# A value in the interpreter.
Held = Array | Constant | Half


@dataclass(frozen=True)
class Operation:
    """One operation; an argument is a list of value names and immediate constants."""

    type: str
    inputs: Mapping[str, tuple[str | Constant, ...]]
    outputs: tuple[Value, ...]
    attributes: Mapping[str, Constant]
    blocks: tuple[Block, ...] = ()
    # The cached results of an operation on constants.
    folded: dict[str, Constant] = field(init=False, default_factory=dict, compare=False, repr=False)

    @property
    def is_constant(self) -> bool:
        """Whether its results are the same in every run."""
        return self.type == "const" or self.type.startswith("constexpr_")

    @property
    def name(self) -> str:
        """The name of its first output, for messages."""
        return self.outputs[0].name if self.outputs else "(no output)"


@dataclass(frozen=True)
class Block:
    """Operations in order, with inputs and outputs."""

    inputs: tuple[Value, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[str, ...]

    @cached_property
    def last_uses(self) -> dict[int, list[str]]:
        """Index of an operation -> the block's own values that are not used after it."""
        last = {value.name: -1 for value in self.inputs}
        for index, operation in enumerate(self.operations):
            last.update((value.name, index) for value in operation.outputs)
            last.update((name, index) for name in _used(operation) if name in last)
        for name in self.outputs:
            last.pop(name, None)
        uses: dict[int, list[str]] = {}
        for name, index in last.items():
            uses.setdefault(index, []).append(name)
        return uses


@dataclass(frozen=True)
class Feature:
    """One input or output; `shapes` or `ranges` are other valid shapes besides `shape`."""

    name: str
    dtype: str
    shape: Shape | None
    shapes: tuple[tuple[int, ...], ...] = ()
    ranges: tuple[tuple[int, int | None], ...] = ()
    # The layout of colours, if the package describes an image: "RGB", "BGR", "grayscale".
    image: str = ""

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of this shape is valid."""
        if self.shapes:
            return shape in self.shapes
        if self.ranges:
            return len(shape) == len(self.ranges) and all(
                low <= size and (high is None or size <= high)
                for size, (low, high) in zip(shape, self.ranges, strict=True)
            )
        return shape_fits(shape, self.shape)


@dataclass(frozen=True)
class Program:
    """One function of an ML program, with the package's description of it."""

    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    arguments: tuple[Value, ...]
    operations: tuple[Operation, ...]
    opset: str
    spec_version: int
    metadata: Mapping[str, str]
    description: str
    # Tensors that are kept between runs.
    states: tuple[Value, ...] = ()
    # Its name, and those of all functions in the package.
    function: str = "main"
    functions: tuple[str, ...] = ("main",)
    # Of a classifier, the features with the best class and with all probabilities.
    predicted: tuple[str, str] = ("", "")

    @cached_property
    def body(self) -> Block:
        """The operations as a block."""
        outputs = tuple(feature.name for feature in self.outputs)
        return Block(self.arguments, self.operations, outputs)

    @property
    def opset_number(self) -> int:
        """5 for CoreML5 (iOS 15), 6 for CoreML6 (iOS 16), and so on."""
        digits = self.opset.removeprefix("CoreML")
        if not (self.opset.startswith("CoreML") and digits.isdecimal()):
            raise ArtifactError(f"unknown MIL opset {self.opset!r}")
        return int(digits)


def shape_fits(shape: tuple[int, ...], declared: Shape | None) -> bool:
    """Whether a shape agrees with the known dimensions of a declared one."""
    return (
        declared is None
        or shape == declared
        or (
            len(shape) == len(declared)
            and all(
                known is None or size == known for size, known in zip(shape, declared, strict=True)
            )
        )
    )


def walk(operations: Iterable[Operation]) -> Iterator[Operation]:
    """The operations and those in their nested blocks."""
    for operation in operations:
        yield operation
        for block in operation.blocks:
            yield from walk(block.operations)


def _used(operation: Operation) -> Iterator[str]:
    """The names that an operation and its nested blocks refer to."""
    for inner in walk([operation]):
        for bindings in inner.inputs.values():
            yield from (binding for binding in bindings if isinstance(binding, str))
        for block in inner.blocks:
            yield from block.outputs


def histogram(program: Program) -> dict[str, int]:
    """The count of each operation type except constants, the most frequent first."""
    counts = Counter(operation.type for operation in walk(program.operations))
    del counts["const"]
    return dict(counts.most_common())
