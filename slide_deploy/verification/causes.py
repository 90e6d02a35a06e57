"""Where the error of an artifact begins, and which known mistake it looks like."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from slide_deploy.errors import ArtifactError
from slide_deploy.parity.block_trace import BlockReference, first_bad_block
from slide_deploy.parity.comparison import OVERFLOW
from slide_deploy.parity.expectation import Expectation
from slide_deploy.parity.metrics import rms_error
from slide_deploy.verification.judge import Inputs, Reference
from slide_deploy.verification.record import Check
from slide_deploy.verification.runner import RunResult, trace_artifact

__all__ = ["with_causes"]

# Of the output: another mistake, or none, differs by far more.
EXPLAINED = 0.01
# Of the distance to the right outputs: where these are near too, nothing is explained.
FARTHER = 0.1


def with_causes(
    check: Check,
    path: Path,
    reference: Reference,
    expected: tuple[Expectation, ...],
    result: RunResult,
) -> Check:
    """The check with the error over the blocks, and with a known mistake in the preprocessing, on
    the probe of the largest error."""
    overflowing = (c.probe for c in check.comparisons if c.problem == OVERFLOW)
    worst = next(overflowing, max(check.comparisons, key=lambda c: c.noise_ratio).probe)
    asked = next(e for e in expected if e.probe == worst)
    inputs = asked.inputs
    assert reference.blocks is not None
    blocks = reference.blocks(inputs, check.precision)
    check = _with_overflow(check, inputs, blocks, reference.remedy)
    check = _with_trace(check, path, inputs, blocks)
    return _with_mistake(check, result.outputs[worst], asked, reference.mistakes(inputs))


def _with_trace(
    check: Check, path: Path, inputs: Inputs, blocks: tuple[BlockReference, ...]
) -> Check:
    """The check with the error over the blocks, unless the artifact cannot be taken apart."""
    try:
        trace = trace_artifact(check.target, path, inputs, blocks)
    except ArtifactError:
        return check
    return replace(check, trace=trace, first_bad_block=first_bad_block(trace))


def _with_mistake(
    check: Check, outputs: Inputs, asked: Expectation, known: Iterable[tuple[str, Inputs]]
) -> Check:
    """The check with the mistake in the preprocessing that explains its outputs, if one does."""
    if not check.problems:
        return check
    named = next((name for name, wrong in known if _explains(wrong, outputs, asked)), "")
    problems = (f"its outputs are as if {named}", *check.problems) if named else check.problems
    return replace(check, problems=problems)


def _explains(wrong: Inputs, outputs: Inputs, asked: Expectation) -> bool:
    """Whether the outputs are those after a mistake, and much farther from the right ones."""

    def explained(made: np.ndarray, mistaken: np.ndarray, right: np.ndarray) -> bool:
        error, size = rms_error(made, mistaken), float(np.sqrt(np.square(mistaken).mean()))
        return error < EXPLAINED * size and error < FARTHER * rms_error(made, right)

    return all(explained(outputs[n], value, asked.references[n]) for n, value in wrong.items())


def _with_overflow(
    check: Check,
    inputs: Inputs,
    blocks: tuple[BlockReference, ...],
    remedy: Callable[[Inputs, str], str],
) -> Check:
    """The check; where the model overflows, with the first block that does and what avoids it."""
    first = next((b.block for b in blocks if not math.isfinite(b.noise_floor)), "")
    if not first or not any(OVERFLOW in problem for problem in check.problems):
        return check
    told = f"; {first} is the first block; {remedy(inputs, check.precision)}".removesuffix("; ")
    problems = tuple(f"{p}{told}" if OVERFLOW in p else p for p in check.problems)
    return replace(check, problems=problems)
