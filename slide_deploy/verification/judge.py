"""Judges the run of an artifact by its interface, operators and outputs. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from slide_deploy.artifacts.manifest import SourceRecord
from slide_deploy.parity.block_trace import BlockReference
from slide_deploy.parity.comparison import (
    OVERFLOW,
    Comparison,
    Tolerance,
    compare,
    constant_outputs,
    disagreements,
    gate_results,
    pooled_ratios,
    relative_errors,
)
from slide_deploy.parity.expectation import Expectation
from slide_deploy.parity.gates import Gate, GateKind, GateResult
from slide_deploy.parity.probes import PIXELS
from slide_deploy.parity.systematic import systematic_ratios
from slide_deploy.protocols import Estimate
from slide_deploy.quantization.catalog import scheme_named
from slide_deploy.types import DynamicAxes, TensorSpec
from slide_deploy.verification.interface import interface_problems
from slide_deploy.verification.runner import RunResult

__all__ = [
    "Inputs",
    "Judgement",
    "Progress",
    "Reference",
    "VerificationPolicy",
    "compare_all",
    "comparison_problems",
    "cpu_problems",
    "judge",
]

Inputs = Mapping[str, np.ndarray]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Reference:
    """What artifacts are compared with. `specs` gives inputs and outputs of an artifact with such
    dynamic axes, `expect` the expectations for it at a precision; `reference` says in words what
    they are. Where there is a model, `fresh` gives expectations for probes drawn from `seed`, `nan`
    what the model makes of a NaN, and `blocks` the model's blocks on one input. `precision` is the
    only one that there are expectations for, where they are recorded. `calibration_sha256` is the
    hash of the calibration set that quantized artifacts are judged on. `mistakes` gives what known
    mistakes in the preprocessing make of the outputs on one input, with their names. `remedy` says
    what keeps the model finite that overflows at a precision on one input. `labels` are the names
    of the classes, where they are known. `held_out` has the expectations for the user's own images,
    on which a quantized precision is judged as on its calibration set."""

    name: str
    source: SourceRecord
    reference: str
    specs: Callable[[DynamicAxes], tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]]
    expect: Callable[[DynamicAxes, str], tuple[Expectation, ...]]
    blocks: Callable[[Inputs, str], tuple[BlockReference, ...]] | None = None
    precision: str = ""
    fresh: Callable[[DynamicAxes, str], tuple[Expectation, ...]] = lambda axes, precision: ()
    nan: Callable[[DynamicAxes], Expectation | None] = lambda axes: None
    mistakes: Callable[[Inputs], Iterator[tuple[str, Inputs]]] = lambda inputs: iter(())
    remedy: Callable[[Inputs, str], str] = lambda inputs, precision: ""
    labels: tuple[str, ...] = ()
    seed: int | None = None
    calibration_sha256: str = ""
    held_out: Callable[[DynamicAxes], tuple[Expectation, ...]] = lambda axes: ()


@dataclass(frozen=True)
class VerificationPolicy:
    """How to judge: `tolerance` replaces the gates, `precision` is the one that artifacts must have
    (None: the manifest's, or float32 without one), `thorough` runs a second implementation on
    artifacts of any size, `trace` measures the error at each block also without a failure.
    `max_drop` replaces the limit on samples, in percent, that quantization classifies otherwise.
    `require_full_npu` fails an artifact for an NPU that leaves an operator on the CPU."""

    tolerance: Tolerance | None = None
    precision: str | None = None
    thorough: bool = False
    trace: bool = False
    max_drop: float | None = None
    require_full_npu: bool = False

    def gates(self, precision: str) -> tuple[Gate, ...]:
        """The gates of the precision scheme, unless the user's tolerance replaces them."""
        if self.tolerance:
            return (self.tolerance.gate,)
        gates = scheme_named(precision).gates
        if self.max_drop is None:
            return gates
        limit = self.max_drop
        return tuple(
            replace(gate, limit=limit) if gate.kind is GateKind.DISAGREEMENT else gate
            for gate in gates
        )


@dataclass(frozen=True)
class Judgement:
    """Comparisons, gate results and problems; without problems the artifact passes. The pooled and
    the systematic error are those of the worst output, as multiples of the noise."""

    comparisons: tuple[Comparison, ...]
    gates: tuple[GateResult, ...]
    pooled_ratio: float | None
    systematic_ratio: float | None
    numbers_differ: bool
    problems: tuple[str, ...]


def judge(
    result: RunResult,
    expected: tuple[Expectation, ...],
    reference: Reference,
    axes: DynamicAxes,
    precision: str,
    policy: VerificationPolicy,
) -> Judgement:
    """Compare the run of an artifact with the expectations."""
    gates = policy.gates(precision)
    comparisons = compare_all(expected, result, precision, policy)
    # What raw pixels do to a model is so rough that it would hide the other probes.
    pooled = pooled_ratios(tuple(e for e in expected if e.probe != PIXELS), result.outputs)
    systematic = systematic_ratios(expected, result.outputs)
    over_probes = {
        GateKind.POOLED_ERROR: pooled,
        GateKind.SYSTEMATIC_ERROR: systematic,
        GateKind.RELATIVE_ERROR: relative_errors(expected, result.outputs),
        GateKind.DISAGREEMENT: disagreements(comparisons),
    }
    differing = (
        *comparison_problems(comparisons),
        *(p for gate in gates for p in _problems_over_probes(gate, over_probes)),
    )
    return Judgement(
        comparisons=comparisons,
        gates=gate_results(gates, comparisons, over_probes),
        pooled_ratio=max(pooled.values(), default=None),
        systematic_ratio=max(systematic.values(), default=None),
        numbers_differ=bool(differing),
        problems=(
            *_other_problems(expected, result, reference, axes),
            *(cpu_problems(result.estimates) if policy.require_full_npu else ()),
            *differing,
        ),
    )


def cpu_problems(estimates: Iterable[Estimate]) -> Iterator[str]:
    """The operators that stay on the CPU, by device."""
    for own in estimates:
        if own.on_cpu:
            count = len(own.on_cpu)
            yield (
                f"{count} operator{'' if count == 1 else 's'} stay{'s' * (count == 1)} on the CPU "
                f"beside {own.device}: {', '.join(own.on_cpu)}"
            )


def compare_all(
    expected: tuple[Expectation, ...],
    result: RunResult,
    precision: str,
    policy: VerificationPolicy,
) -> tuple[Comparison, ...]:
    """Compare every output on every probe."""
    gates = scheme_named(precision).gates
    return tuple(
        comparison
        for expectation in expected
        for comparison in compare(
            expectation, result.outputs[expectation.probe], gates, policy.tolerance
        )
    )


def comparison_problems(comparisons: tuple[Comparison, ...]) -> Iterator[str]:
    """What is wrong, by probe and output; once for all probes on which the model overflows."""
    overflowing = dict.fromkeys(c.probe for c in comparisons if c.problem == OVERFLOW)
    if overflowing:
        yield f"probes {', '.join(overflowing)}: {OVERFLOW}"
    for c in comparisons:
        if c.problem and c.probe not in overflowing:
            yield f"probe {c.probe}, output {c.output}: {c.problem}"


_OVER_PROBES = {
    GateKind.POOLED_ERROR: "all probes, output {name}: the root mean square error is {figure:.1f} "
    "times that of the rounding noise",
    GateKind.SYSTEMATIC_ERROR: "perturbed copies, output {name}: an error {figure:.1f} times the "
    "rounding noise recurs on perturbed copies of one input: it is systematic",
    GateKind.RELATIVE_ERROR: "all samples, output {name}: the root mean square error is "
    "{figure:.0f} % of the output (limit: {limit:g} %)",
    GateKind.DISAGREEMENT: "output {name}: the best class of {figure:.1f} % of the samples is not "
    "that of the reference (limit: {limit:g} %)",
}


def _problems_over_probes(
    gate: Gate, over_probes: Mapping[GateKind, Mapping[str, float]]
) -> Iterator[str]:
    for name, figure in over_probes.get(gate.kind, {}).items():
        if not figure <= gate.limit:
            yield _OVER_PROBES[gate.kind].format(name=name, figure=figure, limit=gate.limit)


def _other_problems(
    expected: tuple[Expectation, ...],
    result: RunResult,
    reference: Reference,
    axes: DynamicAxes,
) -> Iterator[str]:
    yield from interface_problems(result, *reference.specs(axes), axes)
    yield from (f"custom operator {name}" for name in result.custom_operators)
    yield from result.violations
    for name in constant_outputs(expected, result.outputs):
        yield f"output {name} is constant: the artifact ignores its input"
