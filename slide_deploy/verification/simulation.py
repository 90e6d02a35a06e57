"""Whether the simulator of a device computes what the artifact's integers mean, and whether its
compiled parts belong to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from slide_deploy.errors import ArtifactError, SlideDeployError
from slide_deploy.parity.expectation import Expectation
from slide_deploy.parity.metrics import max_abs_error, snr_db
from slide_deploy.protocols import Runtime
from slide_deploy.types import Estimate, Verdict
from slide_deploy.verification.record import Check, Opinion
from slide_deploy.verification.runner import compiled_problems, read_artifact

__all__ = ["cpu_problems", "with_compiled", "with_simulation"]

# What the simulator may differ from the CPU, as a multiple of what the precision itself costs. It
# rounds after each operator, to 8 or 16 bits, where the CPU computes some in float32: on the
# digits models at most 1.2 times the cost.
LIMIT = 2.0

Outputs = Mapping[str, Mapping[str, np.ndarray]]


def cpu_problems(estimates: Iterable[Estimate]) -> Iterator[str]:
    """The operators that stay on the CPU, by device."""
    for own in estimates:
        if own.on_cpu:
            count = len(own.on_cpu)
            yield (
                f"{count} operator{'' if count == 1 else 's'} stay{'s' * (count == 1)} on the CPU "
                f"beside {own.device}: {', '.join(own.on_cpu)}"
            )


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
    feeds = {expectation.probe: dict(expectation.inputs) for expectation in expected}
    try:
        second = read_artifact(runtime.target, path, feeds, second=True)
    except SlideDeployError as error:
        opinion = Opinion(runtime.second_opinion, Verdict.FAIL, problems=(str(error),))
    else:
        opinion = _opinion(second.runtime, expected, outputs, second.outputs)
    problems = (*check.problems, *(f"{opinion.runtime}: {p}" for p in opinion.problems))
    return replace(check, second_opinion=opinion, problems=problems)


def _opinion(
    runtime: str, expected: Sequence[Expectation], simulated: Outputs, on_cpu: Outputs
) -> Opinion:
    pairs = dict(_whole(expected, simulated, on_cpu))
    problems = []
    for name, (own, other, exact) in pairs.items():
        ratio, cost = snr_db(own, other), snr_db(other, exact)
        if not ratio >= cost - 20 * np.log10(LIMIT):
            problems.append(
                f"the simulator's {name} has {ratio:.0f} dB against it; at least "
                f"{cost - 20 * np.log10(LIMIT):.0f} dB are expected, because the precision alone "
                f"leaves {cost:.0f} dB"
            )
    return Opinion(
        runtime=runtime,
        verdict=Verdict.FAIL if problems else Verdict.PASS,
        max_abs_error=max(max_abs_error(own, other) for own, other, _ in pairs.values()),
        snr_db=min(snr_db(own, other) for own, other, _ in pairs.values()),
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
            if name in simulated[e.probe] and name in on_cpu[e.probe]
        ]
        columns = (np.concatenate([row[side].ravel() for row in rows]) for side in range(3))
        if rows:
            yield name, tuple(column.astype(np.float64) for column in columns)
