"""Predicts from the file alone which operations may run on Apple's Neural Engine."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby, pairwise
from pathlib import Path

from slide_deploy.coreml.neural_engine import (
    FLEXIBLE,
    LARGEST,
    LARGEST_OF_OLD,
    LIMITS,
    TYPED,
    WITH,
    WITHOUT,
    Source,
)
from slide_deploy.validators._mil import Operation, Program, Value, read_package, walk

__all__ = [
    "BlockResidency",
    "FunctionResidency",
    "PackageResidency",
    "Place",
    "Placement",
    "Segment",
    "residency",
]


class Place(StrEnum):
    """Where an operation may run at best."""

    NEURAL_ENGINE = "Neural Engine"
    ELSEWHERE = "CPU or GPU"
    UNKNOWN = "not known"


@dataclass(frozen=True)
class Placement:
    """`count` operations of one kind that have the same place for the same reason."""

    operation: str
    count: int
    place: Place
    reason: str
    source: Source | None


@dataclass(frozen=True)
class BlockResidency:
    """The operations of one block of the model, where the package records blocks: how many may run
    on the Neural Engine, elsewhere, and of how many nothing is known. The block without a name has
    those outside of the model's blocks."""

    block: str
    neural_engine: int
    elsewhere: int
    unknown: int


@dataclass(frozen=True)
class Segment:
    """Consecutive operations with the same place, and the names of the first and the last one."""

    place: Place
    operations: int
    first: str
    last: str


@dataclass(frozen=True)
class FunctionResidency:
    """The placements of one function, its segments in order, and what holds for all of it.

    `switches` counts changes between the Neural Engine and another processor, where operations
    whose place is not known cause none.
    """

    function: str
    placements: tuple[Placement, ...]
    blocks: tuple[BlockResidency, ...]
    segments: tuple[Segment, ...]
    switches: int
    notes: tuple[str, ...]

    def count(self, place: Place) -> int:
        """The number of operations with this place."""
        return sum(own.count for own in self.placements if own.place is place)


@dataclass(frozen=True)
class PackageResidency:
    """The predictions for all functions of a package."""

    path: str
    functions: tuple[FunctionResidency, ...]


@dataclass(frozen=True)
class _Placed:
    name: str
    operation: str
    place: Place
    reason: str
    source: Source | None


def residency(path: Path) -> PackageResidency:
    """Predict the place of every operation; ArtifactError for a package that cannot be read.

    Core ML itself decides on the device, by hardware, system and cost.
    """
    names = read_package(path).functions
    return PackageResidency(path.name, tuple(_predicted(read_package(path, n)) for n in names))


def _predicted(program: Program) -> FunctionResidency:
    computed = [op for op in walk(program.operations) if not op.is_constant]
    values = [*program.arguments, *(value for op in computed for value in op.outputs)]
    made = {value.name: value for value in values}
    placed = [_placed(op, made) for op in computed]
    known = [own.place for own in placed if own.place is not Place.UNKNOWN]
    return FunctionResidency(
        function=program.function,
        placements=_grouped(placed),
        blocks=tuple(_by_block(placed, _blocks(program, len(placed)))),
        segments=tuple(_segments(placed)),
        switches=sum(a is not b for a, b in pairwise(known)),
        notes=tuple(_notes(program)),
    )


def _placed(op: Operation, made: Mapping[str, Value]) -> _Placed:
    place, reason, source = _rule(op, made)
    return _Placed(op.name, op.type, place, reason, source)


def _rule(op: Operation, made: Mapping[str, Value]) -> tuple[Place, str, Source | None]:
    """The first rule that applies: the operation, its types, its shapes."""
    if op.type in WITHOUT:
        return Place.ELSEWHERE, "the operation", WITHOUT[op.type]
    given = [made[name] for name in _names(op) if name in made]
    values = [*given, *op.outputs]
    types = {value.type.dtype for value in values}
    for dtype, called in (("fp32", "float32"), ("fp64", "float64"), ("int32", "int32")):
        if dtype in types:
            return Place.ELSEWHERE, f"the type {called}", LIMITS if dtype == "int32" else TYPED
    # More than five dimensions, which the Neural Engine lacks, Core ML refuses (`violations`).
    largest = max((side or 0 for value in values for side in value.type.shape or ()), default=0)
    if largest > LARGEST:
        return Place.ELSEWHERE, f"a dimension of {largest}", LIMITS
    if largest > LARGEST_OF_OLD:
        return Place.UNKNOWN, f"a dimension of {largest}, too large up to A15", LIMITS
    if op.type in WITH:
        return Place.NEURAL_ENGINE, "", WITH[op.type]
    return Place.UNKNOWN, "no source tells of this operation", None


def _names(op: Operation) -> Iterator[str]:
    """The values that an operation reads, constants excepted."""
    yield from (name for names in op.inputs.values() for name in names if isinstance(name, str))


def _grouped(placed: Iterable[_Placed]) -> tuple[Placement, ...]:
    counts = Counter((own.operation, own.place, own.reason, own.source) for own in placed)
    order = list(Place)
    found = [Placement(kind, n, place, why, by) for (kind, place, why, by), n in counts.items()]
    return tuple(sorted(found, key=lambda own: (order.index(own.place), -own.count)))


def _blocks(program: Program, count: int) -> list[str]:
    """The block of each operation, as slide-deploy's exporter records them; none where the record
    is missing or of another program."""
    try:
        runs = json.loads(program.metadata.get("blocks", "[]"))
        names = [str(name) for name, number in runs for _ in range(min(int(number), count + 1))]
    except (ValueError, TypeError):
        return []
    return names if len(names) == count else []


def _by_block(placed: Iterable[_Placed], blocks: Iterable[str]) -> Iterator[BlockResidency]:
    counts: dict[str, Counter[Place]] = {}
    for own, block in zip(placed, blocks, strict=False):
        counts.setdefault(block, Counter())[own.place] += 1
    for block, places in counts.items():
        yield BlockResidency(block, *(places[place] for place in Place))


def _segments(placed: Iterable[_Placed]) -> Iterator[Segment]:
    for place, group in groupby(placed, key=lambda own: own.place):
        own = list(group)
        yield Segment(place, len(own), own[0].name, own[-1].name)


def _notes(program: Program) -> Iterator[str]:
    for feature in program.inputs:
        if feature.ranges:
            yield f"{feature.name} takes shapes in a range: {FLEXIBLE.says} ({FLEXIBLE.url})"
