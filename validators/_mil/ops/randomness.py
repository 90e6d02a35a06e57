"""Random values of the documented distributions.

Core ML's generator is not documented. A seed gives the same values in every run, but not those of
Core ML, so a note is made: results can be compared by shape and distribution only.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator, default_rng

from slide_deploy.validators._mil.dtypes import Array
from slide_deploy.validators._mil.ops.registry import Ints, Note, operation

__all__ = ["random_bernoulli", "random_categorical", "random_normal", "random_uniform"]

_HALF, _ZERO, _ONE = (np.array(value, np.float32) for value in (0.5, 0, 1))


@operation("random_normal")
def random_normal(
    shape: Ints, note: Note, mean: Array = _ZERO, stddev: Array = _ONE, seed: int = -1
) -> Array:
    """Normal with this mean and standard deviation."""
    return _single(mean + stddev * _generator(seed, note).standard_normal(shape))


@operation("random_uniform")
def random_uniform(
    shape: Ints, note: Note, low: Array = _ZERO, high: Array = _ONE, seed: int = -1
) -> Array:
    """Uniform from `low` to below `high`."""
    if high < low:
        raise ValueError(f"high {high} below low {low}")
    values = _single(low + (high - low) * _generator(seed, note).random(shape))
    # Rounding to float32 may reach the upper bound.
    return np.where(values < high, values, np.nextafter(high, low)) if high > low else values


@operation("random_bernoulli")
def random_bernoulli(shape: Ints, note: Note, prob: Array = _HALF, seed: int = -1) -> Array:
    """1 with the probability `prob`, else 0."""
    return _single(_generator(seed, note).random(shape) < prob)


@operation("random_categorical")
def random_categorical(
    x: Array, note: Note, mode: str = "logits", size: int = 1, seed: int = -1
) -> Array:
    """`size` indices from each distribution on the last axis, drawn with replacement."""
    if mode not in ("logits", "probs"):
        raise ValueError(f"unknown mode {mode!r}")
    logits = x.astype(np.float64) if mode == "logits" else np.log(x.astype(np.float64))
    # The index of the largest logit with Gumbel noise has the requested distribution.
    noise = _generator(seed, note).gumbel(size=(*x.shape[:-1], size, x.shape[-1]))
    return _single((logits[..., None, :] + noise).argmax(-1))


def _generator(seed: int, note: Note) -> Generator:
    """The same for the same seed; a new one each time for the default, -1."""
    note("random values are not those of Core ML, whose generator is not documented")
    return default_rng(None if seed == -1 else seed % (1 << 32))


def _single(values: Array) -> Array:
    return np.asarray(values).astype(np.float32)
