"""Where the error of an artifact first exceeds the noise, block by block of the model.

No names are needed. A block's output is the value of the artifact that comes closest to it,
among those of its size, as it lies or with channels first; a block that a converter has
merged into others has no such value, and is passed over where a later block agrees again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from slide_deploy.parity.comparison import NOISE_MULTIPLE
from slide_deploy.utils.records import Figure

__all__ = ["BlockError", "BlockReference", "first_bad_block", "trace_blocks"]

# Differing by more than this share of the block's own amplitude is not an error, it is
# another value: the block's own is not there.
UNRELATED = 0.5


@dataclass(frozen=True)
class BlockReference:
    """One block's float64 output on one input, and the model's own rounding noise there."""

    block: str
    reference: np.ndarray
    noise_floor: float


@dataclass(frozen=True)
class BlockError:
    """How far one block's output is from the float64 reference, in the model's own terms.

    `noise_ratio` is error / noise; `found` is False where the artifact has no such value.
    """

    block: str
    max_abs_error: Figure
    noise_floor: Figure
    noise_ratio: Figure
    found: bool


def trace_blocks(
    values: Iterable[np.ndarray], references: Iterable[BlockReference]
) -> tuple[BlockError, ...]:
    """The error of each block, in the order given; `values` are all those of the artifact."""
    expected = [(reference, _layouts(reference.reference)) for reference in references]
    best = [np.inf] * len(expected)
    for value in values:
        flat = value.reshape(-1)
        for index, (_, layouts) in enumerate(expected):
            for layout in layouts:
                if layout.size == flat.size:
                    best[index] = _closer(flat, layout, best[index])
    return tuple(
        _error(reference, error) for (reference, _), error in zip(expected, best, strict=True)
    )


def first_bad_block(trace: tuple[BlockError, ...]) -> str | None:
    """The first block whose error exceeds the noise; None where every block found is within it."""
    bad = [index for index, error in enumerate(trace) if error.noise_ratio > NOISE_MULTIPLE]
    last_good = max(set(range(len(trace))) - set(bad), default=-1)
    for index in bad:
        if trace[index].found or index > last_good:
            return trace[index].block
    return None


def _layouts(reference: np.ndarray) -> tuple[np.ndarray, ...]:
    """The values in memory order: as they are, and channels first or last instead."""
    if reference.ndim < 3:
        return (reference.reshape(-1),)
    first, last = np.moveaxis(reference, -1, 1), np.moveaxis(reference, 1, -1)
    return reference.reshape(-1), first.reshape(-1), last.reshape(-1)


def _closer(value: np.ndarray, layout: np.ndarray, best: float) -> float:
    sample = slice(None, None, max(1, layout.size // 512))
    if not np.abs(value[sample] - layout[sample]).max() < best:
        return best
    return min(best, float(np.abs(value - layout).max()))


def _error(expected: BlockReference, error: float) -> BlockError:
    amplitude = float(np.sqrt(np.square(expected.reference).mean()))
    ratio = error / expected.noise_floor
    found = error < UNRELATED * amplitude or ratio <= NOISE_MULTIPLE
    return BlockError(expected.block, error, expected.noise_floor, ratio, found)
