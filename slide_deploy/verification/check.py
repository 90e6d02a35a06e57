"""Checks one artifact on disk: runs it in a fresh process and judges its outputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from slide_deploy import registry
from slide_deploy.artifacts.manifest import Artifact
from slide_deploy.errors import ArtifactError, MissingLibrary, NotSupported, UsageError
from slide_deploy.parity.cost import precision_costs
from slide_deploy.parity.expectation import Expectation, with_operator_errors
from slide_deploy.parity.gates import gates_text
from slide_deploy.parity.logarithms import SMALLEST, never_judged
from slide_deploy.protocols import Runtime
from slide_deploy.quantization.catalog import scheme_named, scheme_of
from slide_deploy.quantization.program import has_program, program_precision, smooth_in
from slide_deploy.types import DynamicAxes, Fidelity, Precision, Verdict
from slide_deploy.utils.files import size_of
from slide_deploy.utils.hashing import sha256_of
from slide_deploy.verification.causes import with_causes
from slide_deploy.verification.interface import (
    axes_of,
    label_problems,
    manifest_problems,
    metadata_problems,
    refuse_other_inputs,
    refuse_other_outputs,
)
from slide_deploy.verification.judge import (
    Judgement,
    Progress,
    Reference,
    VerificationPolicy,
    judge,
)
from slide_deploy.verification.not_a_number import nan_problems
from slide_deploy.verification.program import with_program
from slide_deploy.verification.record import Check
from slide_deploy.verification.runner import RunResult, read_artifact, run_expected
from slide_deploy.verification.second_opinion import has_second_opinion, with_second_opinion
from slide_deploy.verification.simulation import with_compiled, with_simulation

__all__ = ["Program", "check_artifact"]

# The float artifact of these dynamic axes, with SmoothQuant of this strength, at a precision.
Program = Callable[[DynamicAxes, float, str], Path]

SYNTHETIC = (
    "its ranges and its cost were measured on synthetic images, and real ones differ: export it "
    "with --calibration FOLDER"
)


def check_artifact(
    path: Path,
    reference: Reference,
    record: Artifact | None,
    policy: VerificationPolicy,
    progress: Progress,
    known: tuple[str, ...] = (),
    program: Program | None = None,
) -> Check:
    """One artifact's verdict; `record` is its manifest entry, `known` problems found before.

    `program` gives the float artifact that one of a reduced precision is compared with, by its
    dynamic axes and precision; without it, it is not judged whether the artifact is the program
    that was meant.
    """
    begin = time.perf_counter()
    check = _check(path, reference, record, policy, progress, known, program)
    return replace(check, seconds=round(time.perf_counter() - begin, 3))


def _check(
    path: Path,
    reference: Reference,
    record: Artifact | None,
    policy: VerificationPolicy,
    progress: Progress,
    known: tuple[str, ...],
    program: Program | None,
) -> Check:
    runtime = registry.recognise(path)
    known_precision = record.precision if record else reference.precision
    precision = policy.precision or known_precision or Precision.FLOAT32
    unrun = Check(
        target=runtime.target,
        path=path.name,
        precision=precision,
        verdict=Verdict.FAIL,
        problems=known,
        sha256=sha256_of(path),
        size_bytes=size_of(path),
    )
    try:
        registry.require(f"reading {runtime.target}", runtime.packages, runtime.extra)
    except MissingLibrary as error:
        return replace(unrun, verdict=Verdict.NOT_RUN, problems=(str(error),))
    try:
        precision = scheme_named(precision).name
        axes = _identify(path, runtime, record, reference, precision, progress)
        unrun = replace(unrun, precision=precision)
        ran = _run(path, runtime, reference, axes, precision, progress)
        smooth = smooth_in(ran.result.metadata) if scheme_named(precision).quantized else 0.0
    except (ArtifactError, UsageError) as error:
        unable = isinstance(error, NotSupported) and not known
        verdict = Verdict.NOT_RUN if unable else Verdict.FAIL
        problems = (*known, str(error))
        return replace(unrun, verdict=verdict, problems=problems, details=error.details)
    if record is not None:
        known = (*known, *manifest_problems(record, runtime, ran.result))
    about = (ran.result.metadata, reference.source, reference.calibration_sha256)
    known = (*known, *metadata_problems(*about), *label_problems(ran.result, reference.labels))
    judgement = judge(ran.result, ran.expected, reference, axes, precision, policy)
    check = _judged(unrun, ran.result, ran.expected, judgement, policy)
    check = _with_record(check, record)
    if not scheme_named(precision).quantized:  # integers have no NaN
        lost, notes = nan_problems(ran.nan, ran.result, runtime.loses_nan)
        check = replace(check, problems=(*check.problems, *lost), notes=notes)
    check = replace(check, notes=(*check.notes, *_improbable(ran.expected)))
    if has_second_opinion(runtime, path, precision, policy):
        progress(f"verifying {path.name}: running it on {runtime.second_opinion}")
        check = with_second_opinion(check, runtime, path, ran.recorded, policy)
    check = _with_device(check, runtime, path, ran, progress)
    if reference.blocks and (policy.trace or judgement.numbers_differ):
        progress(f"verifying {path.name}: tracing its blocks")
        check = with_causes(check, path, reference, ran.expected, ran.result)
    if scheme_named(precision).quantized:
        check = _with_cost(check, ran, judgement)
        check = _with_held_out(check, path, reference, axes, policy, progress)
    if has_program(scheme_named(precision), runtime):
        progress(f"verifying {path.name}: comparing it with its float artifact")
        made_from = program and partial(program, axes, smooth)
        check = _with_program(check, path, reference, made_from, ran.expected, progress)
    problems = (*known, *check.problems)
    return replace(check, problems=problems, verdict=Verdict.FAIL if problems else Verdict.PASS)


def _with_device(
    check: Check, runtime: Runtime, path: Path, ran: _Ran, progress: Progress
) -> Check:
    """The check with what its simulator and its compiled parts show, where it is for a device."""
    if runtime.fidelity() is Fidelity.SIMULATED and scheme_named(check.precision).quantized:
        progress(f"verifying {path.name}: comparing the simulator with {runtime.second_opinion}")
        check = with_simulation(check, runtime, path, ran.expected, ran.result.outputs)
    if runtime.compiled_problems is not None:
        progress(f"verifying {path.name}: compiling it again")
        check = with_compiled(check, runtime, path)
    return check


@dataclass(frozen=True)
class _Ran:
    """What was asked of an artifact, with the part that golden vectors hold and the probe with a
    NaN, and what it answered."""

    recorded: tuple[Expectation, ...]
    expected: tuple[Expectation, ...]
    nan: Expectation | None
    result: RunResult


def _run(
    path: Path,
    runtime: Runtime,
    reference: Reference,
    axes: DynamicAxes,
    precision: str,
    progress: Progress,
) -> _Ran:
    recorded, fresh = (
        with_operator_errors(run(axes, precision), runtime.operator_errors)
        for run in (reference.expect, reference.fresh)
    )
    judges_nan = runtime.loses_nan is not None and not scheme_named(precision).quantized
    nan = reference.nan(axes) if judges_nan else None
    asked = (*recorded, *fresh, nan) if nan else (*recorded, *fresh)
    progress(f"verifying {path.name}: running it")
    result = run_expected(runtime.target, path, asked)
    return _Ran(recorded, (*recorded, *fresh), nan, result)


def _improbable(expected: Sequence[Expectation]) -> Iterator[str]:
    """A note on classes whose probability is too small to be judged on any probe."""
    for name, count in never_judged(expected).items():
        yield (
            f"output {name}: {count} classes have less than {SMALLEST:g} on every probe, and are "
            "not judged; with --keep-logits their scores are"
        )


def _with_cost(check: Check, ran: _Ran, judgement: Judgement) -> Check:
    cost = precision_costs(ran.expected, ran.result.outputs, judgement.comparisons)
    notes = (SYNTHETIC,) if ran.result.metadata.get("calibration") == "synthetic" else ()
    # Every block of a quantized artifact is beyond the noise of a float one.
    return replace(check, cost=cost, notes=notes, first_bad_block=None)


def _with_held_out(
    check: Check,
    path: Path,
    reference: Reference,
    axes: DynamicAxes,
    policy: VerificationPolicy,
    progress: Progress,
) -> Check:
    """The check with the cost of a quantized precision on the user's own images."""
    expected = reference.held_out(axes)
    if not expected:
        return check
    progress(f"verifying {path.name}: running it on the images of --images")
    result = run_expected(check.target, path, expected)
    judgement = judge(result, expected, reference, axes, check.precision, policy)
    new = [problem for problem in judgement.problems if problem not in check.problems]
    problems = (*check.problems, *(f"on the images of --images: {problem}" for problem in new))
    cost = precision_costs(expected, result.outputs, judgement.comparisons)
    return replace(check, held_out=cost, problems=problems)


def _with_program(
    check: Check,
    path: Path,
    reference: Reference,
    program: Callable[[str], Path] | None,
    expected: tuple[Expectation, ...],
    progress: Progress,
) -> Check:
    precision = program_precision(scheme_named(check.precision), registry.exporter(check.target))
    policy = VerificationPolicy(precision=precision)

    def check_float(restored: Path) -> Check:
        return check_artifact(restored, reference, None, policy, progress)

    return with_program(check, path, program, expected, check_float)


def _identify(
    path: Path,
    runtime: Runtime,
    record: Artifact | None,
    reference: Reference,
    precision: str,
    progress: Progress,
) -> DynamicAxes:
    """Dynamic axes, from the manifest or from the file itself.

    The gates are those of `precision`, never of what the file holds: ArtifactError where it was
    made at another one.
    """
    if record is not None:
        made, axes = scheme_named(record.precision), axes_of(record.inputs, "the manifest's record")
    else:
        progress(f"verifying {path.name}: reading its inputs")
        bare = read_artifact(runtime.target, path, {})
        made = scheme_of(bare.weight_type, bare.compute_type)
        axes = axes_of(bare.inputs, path.name)
        inputs, outputs = reference.specs(axes)
        refuse_other_inputs(bare, inputs)
        if reference.blocks:  # without a model, the outputs are given
            refuse_other_outputs(bare, outputs)
    if reference.precision not in ("", made.name):
        raise ArtifactError(
            f"the golden vectors are for {reference.precision}, but {path.name} is {made.name}",
            "pass golden vectors of an export with the same precision",
        )
    if made.name != precision:
        raise ArtifactError(
            f"{path.name} is {made.name}, but {precision} was asked for",
            f"pass --precision {made.short_name} if that is what you exported",
        )
    return axes


def _judged(
    unrun: Check,
    result: RunResult,
    expected: tuple[Expectation, ...],
    judgement: Judgement,
    policy: VerificationPolicy,
) -> Check:
    """The check of an artifact that ran, with the results of its worst comparison."""
    worst = max(judgement.comparisons, key=lambda c: c.noise_ratio)
    return replace(
        unrun,
        problems=judgement.problems,
        gate=gates_text(policy.gates(unrun.precision)),
        gates=judgement.gates,
        fidelity=result.fidelity,
        runtime=result.runtime,
        ran_precision=result.precision,
        weight_type=result.weight_type,
        compute_type=result.compute_type,
        device=result.device,
        other_precision=result.other_precision,
        estimates=result.estimates,
        max_abs_error=worst.max_abs_error,
        noise_floor=worst.noise_floor,
        noise_ratio=worst.noise_ratio,
        snr_db=worst.snr_db,
        operators=result.operators,
        custom_operators=result.custom_operators,
        probes={expectation.probe: expectation.why for expectation in expected},
        comparisons=judgement.comparisons,
        pooled_noise_ratio=judgement.pooled_ratio,
        repeated_noise_ratio=judgement.systematic_ratio,
    )


def _with_record(check: Check, record: Artifact | None) -> Check:
    if record is None:
        return check
    search, problems = record.search, check.problems
    if search and search.min_snr_db is not None and not search.snr_db >= search.min_snr_db:
        reached = f"no settings gave the {search.min_snr_db:g} dB asked for: {search.snr_db:.1f} dB"
        problems = (*problems, reached)
    return replace(check, lowering=record.lowering, search=search, problems=problems)
