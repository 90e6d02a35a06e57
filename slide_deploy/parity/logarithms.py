"""Probabilities are judged by their logarithms, in which errors of the scores stay visible.

Where one class is nearly certain, wrong scores change no probability by more than rounding does;
its logarithm changes as much as the scores do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from slide_deploy.parity.expectation import Expectation

__all__ = ["SMALLEST", "log_probabilities", "never_judged", "with_logarithms", "with_names"]

# Smaller probabilities count as this one. The smallest that float32 holds to all digits is 1.2e-38.
SMALLEST = 1e-30


def log_probabilities(scores: np.ndarray) -> np.ndarray:
    """The logarithms of the softmax of scores (N, classes).

    They are exact where the scores are in float64; else the softmax is rounded to float32, as in an
    artifact.
    """
    wide = scores if scores.dtype == np.float64 else scores.astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):  # scores that overflow give NaN
        shifted = wide - wide.max(axis=1, keepdims=True)
        exponentials = np.exp(shifted)
        total = exponentials.sum(axis=1, keepdims=True)
        if wide.dtype == np.float64:
            return np.asarray(np.maximum(shifted - np.log(total), np.log(SMALLEST)))
        return _logarithm(exponentials / total)


def _logarithm(probabilities: np.ndarray) -> np.ndarray:
    smallest = probabilities.dtype.type(SMALLEST)
    return np.asarray(np.log(np.maximum(probabilities, smallest)))


def with_names(
    expectations: Sequence[Expectation], names: tuple[str, ...]
) -> tuple[Expectation, ...]:
    """The expectations, whose outputs of these names are logarithms."""
    return tuple(replace(expectation, logarithms=names) for expectation in expectations)


def with_logarithms(
    outputs: Mapping[str, Mapping[str, np.ndarray]], expectations: Sequence[Expectation]
) -> dict[str, dict[str, np.ndarray]]:
    """The outputs of an artifact, by probe and name, with logarithms where they are expected.

    Outputs of another type than float32 are left as they are: they fail for their type.
    """
    names = {e.probe: e.logarithms for e in expectations}
    return {
        probe: {
            name: _logarithm(value)
            if name in names.get(probe, ()) and value.dtype == np.float32
            else value
            for name, value in own.items()
        }
        for probe, own in outputs.items()
    }


def never_judged(expectations: Sequence[Expectation]) -> dict[str, int]:
    """Per output of logarithms, the number of classes that are too improbable on every probe to be
    judged; only outputs that have some."""
    found = {}
    for name in expectations[0].logarithms:
        rows = np.concatenate([e.references[name] for e in expectations])
        if count := int((rows <= np.log(SMALLEST) + 1e-9).all(axis=0).sum()):
            found[name] = count
    return found
