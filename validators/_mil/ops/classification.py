"""The prediction of a classifier from its probabilities."""

from __future__ import annotations

import numpy as np

from slide_deploy.validators._mil.dtypes import Array
from slide_deploy.validators._mil.ops.registry import operation

__all__ = ["classify"]


@operation("classify")
def classify(probabilities: Array, classes: Array) -> tuple[Array, Array]:
    """The first most probable class, and an array of (class, probability) pairs."""
    if probabilities.dtype != np.float32:
        raise ValueError(f"probabilities of type {probabilities.dtype}, not float32")
    if classes.ndim != 1 or classes.size != probabilities.size or not classes.size:
        raise ValueError(f"{classes.size} classes for {probabilities.size} probabilities")
    if np.unique(classes).size != classes.size:
        raise ValueError("two classes of the same name")
    pairs = np.empty(classes.size, np.dtype([("key", classes.dtype), ("value", np.float64)]))
    pairs["key"], pairs["value"] = classes, probabilities.reshape(-1)
    return classes[probabilities.argmax()], pairs
