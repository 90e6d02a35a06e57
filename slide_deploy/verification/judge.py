"""Judge one artifact: interface, operators, numbers. Any doubt fails it. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slide_deploy import registry
from slide_deploy.artifacts.manifest import Artifact, SourceRecord
from slide_deploy.errors import ArtifactError, MissingLibrary, UsageError
from slide_deploy.parity.block_trace import BlockError, BlockReference, first_bad_block
from slide_deploy.parity.comparison import (
    NOISE_MULTIPLE,
    POOLED_MULTIPLE,
    SYSTEMATIC_MULTIPLE,
    Comparison,
    Tolerance,
    compare,
    constant_outputs,
    pooled_ratios,
    systematic_ratios,
)
from slide_deploy.parity.expectation import Expectation
from slide_deploy.protocols import Runtime
from slide_deploy.types import DynamicAxes, Precision, TensorSpec, Verdict, dynamic_axes_of
from slide_deploy.utils.files import size_of
from slide_deploy.utils.hashing import sha256_of
from slide_deploy.verification.record import Check, Opinion
from slide_deploy.verification.runner import RunResult, read_artifact, trace_artifact

__all__ = ["Judgement", "Progress", "Reference", "VerificationPolicy", "check_artifact", "judge"]

Inputs = Mapping[str, np.ndarray]
Progress = Callable[[str], None]

# ONNX's reference evaluator is slow: by default it gives its opinion on small artifacts.
SMALL_ARTIFACT = 8_000_000


@dataclass(frozen=True)
class Reference:
    """What artifacts are held against. `specs` gives inputs and outputs of an artifact of that
    extent, `expect` the expectations at an extent and precision; `reference` says in words what
    they are. `blocks` gives the model's blocks on one input, where there is a model."""

    name: str
    source: SourceRecord
    reference: str
    specs: Callable[[DynamicAxes], tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]]
    expect: Callable[[DynamicAxes, Precision], tuple[Expectation, ...]]
    blocks: Callable[[Inputs, Precision], tuple[BlockReference, ...]] | None = None


@dataclass(frozen=True)
class VerificationPolicy:
    """How to judge: a user's own tolerance, a second opinion on artifacts of any size, and
    the error over the blocks also where nothing failed."""

    tolerance: Tolerance | None = None
    thorough: bool = False
    trace: bool = False


def check_artifact(
    path: Path,
    subject: Reference,
    record: Artifact | None,
    policy: VerificationPolicy,
    progress: Progress,
    found: tuple[str, ...] = (),
) -> Check:
    """One artifact's verdict; `record` is its manifest entry, `found` problems known already."""
    runtime = registry.recognise(path)
    precision = record.precision if record else Precision.FLOAT32
    try:
        registry.require(f"reading {runtime.target}", runtime.packages, runtime.extra)
    except MissingLibrary as error:
        return _without_run(runtime, path, precision, Verdict.NOT_RUN, str(error))
    try:
        if record is not None:
            extent = _extent_of(record.inputs, "the manifest's record")
        else:
            progress(f"opening {path.name}")
            bare = read_artifact(runtime.target, path, {})
            extent = _extent_of(bare.inputs, path.name)
            precision = _stored_precision(bare)
        expected = subject.expect(extent, precision)
        feeds = {expectation.probe: dict(expectation.inputs) for expectation in expected}
        progress(f"running {path.name}")
        reading = read_artifact(runtime.target, path, feeds)
    except (ArtifactError, UsageError) as error:
        return _without_run(runtime, path, precision, Verdict.FAIL, *found, str(error))
    if record is not None:
        found = (*found, *_misrecorded(record, runtime, reading))
    judgement = judge(reading, expected, subject, extent, precision, policy)
    comparisons, problems = judgement.comparisons, (*found, *judgement.problems)
    opinion = None
    if runtime.second_opinion and (policy.thorough or size_of(path) < SMALL_ARTIFACT):
        progress(f"asking {runtime.second_opinion} about {path.name}")
        opinion = _second_opinion(runtime, path, expected, precision, policy)
        if opinion.verdict is Verdict.FAIL:
            problems = (*problems, *(f"{opinion.runtime}: {p}" for p in opinion.problems))
    worst = max(comparisons, key=lambda c: c.noise_ratio)
    trace: tuple[BlockError, ...] = ()
    if subject.blocks and (policy.trace or judgement.numbers_differ):
        progress(f"tracing {path.name}")
        trace = _trace(runtime, path, subject.blocks, feeds[worst.probe], precision)
    return Check(
        target=runtime.target,
        path=path.name,
        precision=precision,
        verdict=Verdict.FAIL if problems else Verdict.PASS,
        problems=problems,
        gate=_gate(precision, policy),
        sha256=sha256_of(path),
        size_bytes=size_of(path),
        fidelity=reading.fidelity,
        runtime=reading.runtime,
        ran_precision=reading.precision,
        max_abs_error=worst.max_abs_error,
        noise_floor=worst.noise_floor,
        noise_ratio=worst.noise_ratio,
        snr_db=worst.snr_db,
        lowering=record.lowering if record else (),
        operators=reading.operators,
        custom_operators=reading.custom_operators,
        probes={expectation.probe: expectation.why for expectation in expected},
        comparisons=comparisons,
        pooled_noise_ratio=judgement.pooled_ratio,
        repeated_noise_ratio=judgement.repeated_ratio,
        second_opinion=opinion,
        trace=trace,
        first_bad_block=first_bad_block(trace),
    )


@dataclass(frozen=True)
class Judgement:
    """Every comparison; in multiples of the noise and of the worst output, the error over all
    probes and the error that echoes repeat; and what is wrong: no problem means a pass."""

    comparisons: tuple[Comparison, ...]
    pooled_ratio: float | None
    repeated_ratio: float | None
    numbers_differ: bool
    problems: tuple[str, ...]


def judge(
    reading: RunResult,
    expected: tuple[Expectation, ...],
    subject: Reference,
    extent: DynamicAxes,
    precision: Precision,
    policy: VerificationPolicy,
) -> Judgement:
    """Hold what an artifact did against what it must do."""
    comparisons = _compare_all(expected, reading, precision, policy)
    pooled = pooled_ratios(expected, reading.outputs)
    repeated = systematic_ratios(expected, reading.outputs)
    calibrated = precision is Precision.FLOAT32 and policy.tolerance is None
    differing = (
        *_numeric_problems(comparisons),
        *(_pooled_problems(pooled) if calibrated else ()),
        *(_systematic_problems(repeated) if calibrated else ()),
    )
    return Judgement(
        comparisons=comparisons,
        pooled_ratio=max(pooled.values(), default=None),
        repeated_ratio=max(repeated.values(), default=None),
        numbers_differ=bool(differing),
        problems=(*_other_problems(expected, reading, subject, extent), *differing),
    )


def _trace(
    runtime: Runtime,
    path: Path,
    blocks: Callable[[Inputs, Precision], tuple[BlockReference, ...]],
    inputs: Inputs,
    precision: Precision,
) -> tuple[BlockError, ...]:
    """The error over the blocks, or nothing where the artifact cannot be taken apart."""
    try:
        return trace_artifact(runtime.target, path, inputs, blocks(inputs, precision))
    except ArtifactError:
        return ()


def _extent_of(inputs: tuple[TensorSpec, ...], whose: str) -> DynamicAxes:
    extent = dynamic_axes_of(inputs)
    if isinstance(extent.batch, int) and extent.batch < 1:
        raise ArtifactError(f"{whose} has no input with a batch dimension", "export again")
    return extent


def _stored_precision(reading: RunResult) -> Precision:
    return Precision.FLOAT16 if "float16" in reading.precision else Precision.FLOAT32


def _misrecorded(record: Artifact, runtime: Runtime, reading: RunResult) -> Iterator[str]:
    """Whether the manifest says of the file what the file is."""
    if record.target != runtime.target:
        yield f"the manifest calls it {record.target}, it is {runtime.target}"
    if record.precision is not _stored_precision(reading):
        yield f"the manifest says {record.precision}, the file is {_stored_precision(reading)}"
    any_size = dynamic_axes_of(record.inputs).any_size
    for kind, have, said, undecided in (
        ("inputs", reading.inputs, record.inputs, False),
        ("outputs", reading.output_specs, record.outputs, any_size),
    ):
        if [s.name for s in have] != [s.name for s in said] or not all(
            _is_as_wanted(*pair, undecided=undecided) for pair in zip(have, said, strict=True)
        ):
            yield f"the manifest lists other {kind} than the file has"


def _compare_all(
    expected: tuple[Expectation, ...],
    reading: RunResult,
    precision: Precision,
    policy: VerificationPolicy,
) -> tuple[Comparison, ...]:
    return tuple(
        comparison
        for expectation in expected
        for comparison in compare(
            expectation, reading.outputs[expectation.probe], precision, policy.tolerance
        )
    )


def _other_problems(
    expected: tuple[Expectation, ...],
    reading: RunResult,
    subject: Reference,
    extent: DynamicAxes,
) -> Iterator[str]:
    yield from _interface_problems(reading, subject, extent)
    yield from (f"custom operator {name}" for name in reading.custom_operators)
    yield from reading.violations
    for name in constant_outputs(expected, reading.outputs):
        yield f"output {name} is constant: the artifact ignores its input"


def _numeric_problems(comparisons: tuple[Comparison, ...]) -> Iterator[str]:
    for c in comparisons:
        if c.problem:
            yield f"probe {c.probe}, output {c.output}: {c.problem}"


def _pooled_problems(ratios: Mapping[str, float]) -> Iterator[str]:
    for name, ratio in ratios.items():
        if not ratio <= POOLED_MULTIPLE:
            yield (
                f"all probes, output {name}: the root mean square error is "
                f"{ratio:.1f} times that of the float32 noise"
            )


def _systematic_problems(ratios: Mapping[str, float]) -> Iterator[str]:
    for name, ratio in ratios.items():
        if not ratio <= SYSTEMATIC_MULTIPLE:
            yield (
                f"echoes, output {name}: an error {ratio:.1f} times the float32 noise "
                "returns on near copies of one input: it is no rounding"
            )


def _interface_problems(
    reading: RunResult, subject: Reference, extent: DynamicAxes
) -> Iterator[str]:
    inputs, outputs = subject.specs(extent)
    for kind, found, wanted, undecided in (
        ("input", reading.inputs, inputs, False),
        ("output", reading.output_specs, outputs, extent.any_size),
    ):
        if [spec.name for spec in found] != [spec.name for spec in wanted]:
            names = ", ".join(spec.name for spec in found)
            yield f"{kind}s are named {names}, not {', '.join(spec.name for spec in wanted)}"
            continue
        for have, want in zip(found, wanted, strict=True):
            if not _is_as_wanted(have, want, undecided=undecided):
                yield (
                    f"{kind} {have.name} is {have.dtype}{list(have.shape)}, "
                    f"not {want.dtype}{list(want.shape)}"
                )


def _is_as_wanted(have: TensorSpec, want: TensorSpec, *, undecided: bool) -> bool:
    """Whether both agree; free dimensions are named as a runtime likes. With `undecided`, it may
    not be able to tell that a dimension is not free: the size is seen when it runs."""
    return (
        have.dtype == want.dtype
        and len(have.shape) == len(want.shape)
        and all(
            isinstance(size, str)
            if isinstance(wanted, str)
            else size == wanted or (undecided and isinstance(size, str))
            for size, wanted in zip(have.shape, want.shape, strict=True)
        )
    )


def _second_opinion(
    runtime: Runtime,
    path: Path,
    expected: tuple[Expectation, ...],
    precision: Precision,
    policy: VerificationPolicy,
) -> Opinion:
    # One probe per shape: what is asked is whether two implementations read the same file.
    asked = {str(e.inputs[next(iter(e.inputs))].shape): e for e in reversed(expected)}
    chosen = tuple(reversed(asked.values()))
    feeds = {expectation.probe: dict(expectation.inputs) for expectation in chosen}
    try:
        reading = read_artifact(runtime.target, path, feeds, second=True)
    except ArtifactError as error:
        return Opinion(runtime.second_opinion, Verdict.FAIL, problems=(str(error),))
    comparisons = _compare_all(chosen, reading, precision, policy)
    problems = tuple(_numeric_problems(comparisons))
    return Opinion(
        runtime=reading.runtime,
        verdict=Verdict.FAIL if problems else Verdict.PASS,
        max_abs_error=max(c.max_abs_error for c in comparisons),
        noise_ratio=max(c.noise_ratio for c in comparisons),
        snr_db=min(c.snr_db for c in comparisons),
        problems=problems,
    )


def _gate(precision: Precision, policy: VerificationPolicy) -> str:
    if policy.tolerance is not None:
        return str(policy.tolerance)
    if precision is Precision.FLOAT32:
        return (
            f"error ≤ {NOISE_MULTIPLE:g} × the model's own float32 noise, per probe and output; "
            f"≤ {POOLED_MULTIPLE:g} × over all probes, and ≤ {SYSTEMATIC_MULTIPLE:g} × where it "
            "returns on near copies of an input (root mean square)"
        )
    return "signal-to-noise within 10 dB of PyTorch's own float16, per probe and output"


def _without_run(
    runtime: Runtime, path: Path, precision: Precision, verdict: Verdict, *problems: str
) -> Check:
    return Check(
        target=runtime.target,
        path=path.name,
        precision=precision,
        verdict=verdict,
        problems=problems,
        sha256=sha256_of(path),
        size_bytes=size_of(path),
    )
