"""Whether the simulator of a device computes what the artifact's integers mean, and whether its
compiled parts belong to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from slide_deploy.errors import ArtifactError, SlideDeployError
from slide_deploy.parity.expectation import Expectation
from slide_deploy.parity.metrics import max_abs_error, snr_db
from slide_deploy.protocols import Runtime
from slide_deploy.types import Verdict
from slide_deploy.verification.record import Check, Opinion
from slide_deploy.verification.runner import compiled_problems, run_expected
from slide_deploy.verification.second_opinion import disputed

__all__ = ["with_compiled", "with_simulation"]

# What the simulator may differ from the CPU, as a multiple of what the precision itself costs. It
# rounds after each operator, to 8 or 16 bits, where the CPU computes some in float32: on the
# digits models at most 1.2 times the cost.
LIMIT = 2.0

Outputs = Mapping[str, Mapping[str, np.ndarray]]


def with_compiled(check: Check, runtime: Runtime, path: Path) -> Check:
    """The check, with what is wrong with the compiled parts of an artifact."""
    try:
        problems = compiled_problems(runtime.target, path)
    except ArtifactError as error:
        problems = (str(error),)
    return replace(check, problems=(*check.problems, *problems))


def with_simulation(
    check: Check, runtime: Runtime, path: Path, expected: Sequence[Expectation], outputs: Outputs
) -> Check:
    """The check, with the simulator's `outputs` compared with those of the second implementation,
    which runs the same integers on the CPU."""
    try:
        second = run_expected(runtime.target, path, expected, second=True)
    except SlideDeployError as error:
        opinion = Opinion(runtime.second_opinion, Verdict.FAIL, problems=(str(error),))
    else:
        opinion = _opinion(second.runtime, expected, outputs, second.outputs)
    return disputed(check, opinion)


def _opinion(
    runtime: str, expected: Sequence[Expectation], simulated: Outputs, on_cpu: Outputs
) -> Opinion:
    errors, ratios, problems = [], [], []
    for name, (own, other, exact) in _whole(expected, simulated, on_cpu):
        ratio, cost = snr_db(own, other), snr_db(other, exact)
        least = cost - 20 * np.log10(LIMIT)
        errors.append(max_abs_error(own, other))
        ratios.append(ratio)
        if not ratio >= least:
            problems.append(
                f"the simulator's {name} has {ratio:.0f} dB against it; at least {least:.0f} dB "
                f"are expected, because the precision alone leaves {cost:.0f} dB"
            )
    if not ratios:
        problems.append("it has no output of the model that the simulator has too")
    return Opinion(
        runtime=runtime,
        verdict=Verdict.FAIL if problems else Verdict.PASS,
        max_abs_error=max(errors, default=None),
        snr_db=min(ratios, default=None),
        problems=tuple(problems),
    )


def _whole(
    expected: Sequence[Expectation], simulated: Outputs, on_cpu: Outputs
) -> Iterator[tuple[str, tuple[np.ndarray, ...]]]:
    """Each output over all samples: the simulator's, the CPU's, the reference."""
    for name in expected[0].references:
        rows = [
            (simulated[e.probe][name], on_cpu[e.probe][name], e.references[name])
            for e in expected
            if _shape(simulated, e, name) == _shape(on_cpu, e, name) == e.references[name].shape
        ]
        if rows:
            columns = (np.concatenate([row[side].ravel() for row in rows]) for side in range(3))
            yield name, tuple(column.astype(np.float64) for column in columns)


def _shape(outputs: Outputs, expected: Expectation, name: str) -> tuple[int, ...] | None:
    value = outputs[expected.probe].get(name)
    return None if value is None else value.shape
