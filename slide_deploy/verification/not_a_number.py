"""Whether NaN in an input stays visible in the outputs, where the model shows it."""

from __future__ import annotations

import numpy as np

from slide_deploy.parity.expectation import Expectation
from slide_deploy.verification.runner import RunResult

__all__ = ["nan_problems"]


def nan_problems(
    expected: Expectation | None, result: RunResult, loses_nan: frozenset[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Problems, and notes on what was not judged: some runtimes, and some operators of others,
    do not promise to pass NaN on (see `Runtime.loses_nan`)."""
    if loses_nan is None:
        return (), (f"NaN was not judged: {result.runtime} does not promise to pass it on",)
    if expected is None:
        return (), ("NaN was not judged: no probe holds one",)
    if losing := sorted(loses_nan & result.operators.keys()):
        return (), (f"NaN was not judged: {', '.join(losing)} may answer it with a number",)
    made = result.outputs[expected.probe]
    lost = tuple(
        f"probe {expected.probe}, output {name}: numbers where the model gives NaN"
        for name, reference in expected.references.items()
        if name in made
        and made[name].shape == reference.shape
        and (np.isnan(reference) & ~np.isnan(made[name])).any()
    )
    return lost, ()
