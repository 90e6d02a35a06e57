"""What a `.mlpackage` says, as plain data: features, operations and declared types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from slide_deploy.errors import ArtifactError
from slide_deploy.validators._mil.dtypes import Array

__all__ = [
    "Constant",
    "Feature",
    "Operation",
    "Program",
    "Shape",
    "TensorType",
    "Value",
    "histogram",
    "shape_fits",
]

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class TensorType:
    """Element type and shape; an unknown dimension is None, and so is a shape of unknown rank."""

    dtype: str
    shape: Shape | None


@dataclass(frozen=True)
class Value:
    """A name and the type the program declares for it."""

    name: str
    type: TensorType


@dataclass(frozen=True, eq=False)
class Constant:
    """A value written in the package; its array is read-only."""

    type: TensorType
    data: Array


@dataclass(frozen=True)
class Operation:
    """One step; an argument is a list of value names and immediate constants."""

    type: str
    inputs: Mapping[str, tuple[str | Constant, ...]]
    outputs: tuple[Value, ...]
    attributes: Mapping[str, Constant]
    blocks: int = 0

    @property
    def name(self) -> str:
        """The name of the first value it makes, by which messages call it."""
        return self.outputs[0].name if self.outputs else "(no output)"


@dataclass(frozen=True)
class Feature:
    """One input or output; `shapes` or `ranges` say what else than `shape` it may have."""

    name: str
    dtype: str
    shape: Shape | None
    shapes: tuple[tuple[int, ...], ...] = ()
    ranges: tuple[tuple[int, int | None], ...] = ()
    image: bool = False

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of this shape may be given."""
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
    """The main function of an ML program, with the package's description of it."""

    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    arguments: tuple[Value, ...]
    operations: tuple[Operation, ...]
    opset: str
    spec_version: int
    metadata: Mapping[str, str]
    description: str

    @property
    def opset_number(self) -> int:
        """5 for CoreML5 (iOS 15), 6 for CoreML6 (iOS 16), and so on."""
        digits = self.opset.removeprefix("CoreML")
        if not (self.opset.startswith("CoreML") and digits.isdecimal()):
            raise ArtifactError(f"unknown MIL opset {self.opset!r}")
        return int(digits)


def shape_fits(shape: tuple[int, ...], declared: Shape | None) -> bool:
    """Whether a shape agrees with a declared one on every dimension that is known."""
    return declared is None or (
        len(shape) == len(declared)
        and all(known is None or size == known for size, known in zip(shape, declared, strict=True))
    )


def histogram(program: Program) -> dict[str, int]:
    """How often each operation type occurs, constants left out, the most frequent first."""
    counts = Counter(operation.type for operation in program.operations)
    del counts["const"]
    return dict(counts.most_common())
