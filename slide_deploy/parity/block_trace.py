"""Finds the first block of the model at which the error of an artifact exceeds the noise.

Blocks are found without names: a block's output is the closest value in the artifact of the same
size, possibly with channels first. A block that a converter has merged into others has no such
value, only similar ones, and is skipped if a later block agrees.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from slide_deploy.parity.comparison import NOISE_MULTIPLE
from slide_deploy.utils.records import Figure

__all__ = ["VANISHED", "BlockError", "BlockReference", "first_bad_block", "trace_blocks"]

# A value that differs by more than this share of the block's amplitude is not the block's output.
UNRELATED = 0.5

# Nor is it where a later block is right to within this share of the difference: an error of the
# block itself would have reached it. Blocks of small outputs may lose some of it on the way.
VANISHED = 0.01


@dataclass(frozen=True)
class BlockReference:
    """One block's float64 output on one input, and the model's own rounding noise there."""

    block: str
    reference: np.ndarray
    noise_floor: float


@dataclass(frozen=True)
class BlockError:
    """The error of one block's output, compared with the float64 reference.

    `noise_ratio` is error / noise; `found` is False if the artifact has no such value. `snr_db` is
    the signal-to-noise ratio of the output; None in older reports.
    """

    block: str
    max_abs_error: Figure
    noise_floor: Figure
    noise_ratio: Figure
    found: bool
    snr_db: Figure | None = None


def trace_blocks(
    values: Iterable[np.ndarray], references: Iterable[BlockReference]
) -> tuple[BlockError, ...]:
    """The error of each block, in the given order; `values` are all values of the artifact."""
    expected = [(reference, _layouts(reference.reference)) for reference in references]
    best = [(np.inf, np.inf)] * len(expected)
    for value in values:
        flat = value.reshape(-1)
        for index, (_, layouts) in enumerate(expected):
            for layout in layouts:
                if layout.size == flat.size:
                    best[index] = _closer(flat, layout, best[index])
    return tuple(
        _error(reference, *errors) for (reference, _), errors in zip(expected, best, strict=True)
    )


def first_bad_block(trace: tuple[BlockError, ...]) -> str | None:
    """The first block whose error exceeds the noise; None if there is none."""
    for index, error in enumerate(trace):
        if not _agrees(error) and not any(
            _agrees(later) and (not error.found or _bound(later) < VANISHED * error.max_abs_error)
            for later in trace[index + 1 :]
        ):
            return error.block
    return None


def _agrees(error: BlockError) -> bool:
    return error.noise_ratio <= NOISE_MULTIPLE


def _bound(error: BlockError) -> float:
    return NOISE_MULTIPLE * error.noise_floor


def _layouts(reference: np.ndarray) -> tuple[np.ndarray, ...]:
    """The values in memory order: unchanged, with channels first, and with channels last."""
    if reference.ndim < 3:
        return (reference.reshape(-1),)
    first, last = np.moveaxis(reference, -1, 1), np.moveaxis(reference, 1, -1)
    return reference.reshape(-1), first.reshape(-1), last.reshape(-1)


def _closer(
    value: np.ndarray, layout: np.ndarray, best: tuple[float, float]
) -> tuple[float, float]:
    """The largest and the root mean square error of the closer of two values."""
    sample = slice(None, None, max(1, layout.size // 512))
    if not np.abs(value[sample] - layout[sample]).max() < best[0]:
        return best
    error = value - layout
    return min(best, (float(np.abs(error).max()), float(np.sqrt(np.square(error).mean()))))


def _error(expected: BlockReference, error: float, rms: float) -> BlockError:
    amplitude = float(np.sqrt(np.square(expected.reference).mean()))
    with np.errstate(divide="ignore"):
        snr_db = float(20 * np.log10(np.divide(amplitude, rms)))
    ratio = error / expected.noise_floor
    found = error < UNRELATED * amplitude or ratio <= NOISE_MULTIPLE
    return BlockError(expected.block, error, expected.noise_floor, ratio, found, snr_db)
