"""Random operations: shape, distribution, and the same values for the same seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb

from slide_deploy.validators._mil import evaluate, read_package

Run = Callable[..., list[np.ndarray]]
ZERO = np.zeros(1, np.float32)
SHAPE = [40, 500]


def drawn(run: Run, name: str, opset: int = 5, **arguments: Any) -> np.ndarray:
    def build(x: Any) -> Any:
        return mb.add(x=x, y=getattr(mb, name)(shape=SHAPE, **arguments))

    (found,) = run(build, [ZERO], opset)
    assert found.shape == tuple(SHAPE)
    return found


def test_normal(run: Run) -> None:
    values = drawn(run, "random_normal", mean=3.0, stddev=2.0, seed=1)
    assert abs(values.mean() - 3) < 0.1
    assert abs(values.std() - 2) < 0.1
    assert 0.6 < (np.abs(values - 3) < 2).mean() < 0.75


def test_uniform(run: Run) -> None:
    values = drawn(run, "random_uniform", low=-1.0, high=3.0, seed=1)
    assert values.min() >= -1
    assert values.max() < 3
    counts, _ = np.histogram(values, 4, (-1, 3))
    assert np.abs(counts / values.size - 0.25).max() < 0.02


def test_bernoulli(run: Run) -> None:
    values = drawn(run, "random_bernoulli", prob=0.3, seed=1)
    assert set(np.unique(values)) == {0, 1}
    assert abs(values.mean() - 0.3) < 0.02


@pytest.mark.parametrize("mode", ["logits", "probs"])
def test_categorical(run: Run, mode: str) -> None:
    shares = np.array([[0.1, 0.2, 0.7], [0.5, 0.5, 0]], np.float32)
    x = np.log(np.maximum(shares, 1e-30)) if mode == "logits" else np.maximum(shares, 1e-30)
    (found,) = run(lambda x: mb.random_categorical(x=x, mode=mode, size=5000, seed=1), [x])
    assert found.shape == (2, 5000)
    for row, share in zip(found, shares, strict=True):
        counts = np.bincount(row.astype(int), minlength=3)
        assert np.abs(counts / 5000 - share).max() < 0.03


def test_a_seed_repeats_and_none_does_not(run: Run) -> None:
    np.testing.assert_array_equal(
        drawn(run, "random_normal", seed=7), drawn(run, "random_normal", seed=7)
    )
    assert not np.array_equal(
        drawn(run, "random_normal", seed=7), drawn(run, "random_normal", seed=8)
    )
    assert not np.array_equal(drawn(run, "random_normal"), drawn(run, "random_normal"))


def test_random_values_are_noted(write: Callable[..., Path]) -> None:
    path = write(lambda x: mb.add(x=x, y=mb.random_normal(shape=SHAPE, seed=1)), [ZERO])
    notes: list[str] = []
    evaluate(read_package(path), {"x": ZERO}, note=notes.append)
    assert [note.split(": ")[1][:13] for note in notes] == ["random values"]
