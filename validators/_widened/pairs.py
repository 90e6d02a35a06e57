"""Pairs what a float16 artifact reads with what its float32 artifact reads in the same place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from slide_deploy.errors import DifferentProgram

__all__ = ["paired"]

Node = TypeVar("Node")


def paired(
    halves: Sequence[tuple[str, Node]], singles: Sequence[tuple[str, Node]]
) -> Iterator[tuple[Node, Node]]:
    """The operations of both artifacts, given with their kinds in order; DifferentProgram where the
    kinds differ."""
    for number, ((kind, half), (other, single)) in enumerate(zip(halves, singles, strict=False)):
        if kind != other:
            raise DifferentProgram(
                f"operation {number} is {kind}, but {other} in the float32 artifact"
            )
        yield half, single
    if len(halves) != len(singles):
        raise DifferentProgram(
            f"it has {len(halves)} operations, but the float32 artifact {len(singles)}"
        )
