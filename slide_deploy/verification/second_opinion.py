"""Whether an independent implementation of the format agrees with the artifact's runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from slide_deploy.errors import ArtifactError
from slide_deploy.parity.expectation import Expectation
from slide_deploy.protocols import Runtime
from slide_deploy.quantization.catalog import scheme_named
from slide_deploy.types import Fidelity, Verdict
from slide_deploy.utils.files import size_of
from slide_deploy.verification.judge import VerificationPolicy, compare_all, comparison_problems
from slide_deploy.verification.record import Check, Opinion
from slide_deploy.verification.runner import run_expected

__all__ = ["disputed", "has_second_opinion", "with_second_opinion"]

# ONNX's reference evaluator is slow, so by default it only runs small artifacts.
SMALL_ARTIFACT = 8_000_000


def has_second_opinion(
    runtime: Runtime, path: Path, precision: str, policy: VerificationPolicy
) -> bool:
    """Whether a second implementation runs the artifact.

    ONNX's reference evaluator accumulates in float16 where no runtime does. A float program beside
    a simulator runs in the second implementation anyway.
    """
    if not runtime.second_opinion or runtime.fidelity() is Fidelity.SIMULATED:
        return False
    small = policy.thorough or size_of(path) < SMALL_ARTIFACT
    scheme = scheme_named(precision)
    return small and scheme.render is None and not scheme.quantized


def with_second_opinion(
    check: Check,
    runtime: Runtime,
    path: Path,
    expected: tuple[Expectation, ...],
    policy: VerificationPolicy,
) -> Check:
    """The check, with the outputs of the second implementation judged as well."""
    # One probe per shape is enough to compare two implementations.
    asked = {str(e.inputs[next(iter(e.inputs))].shape): e for e in reversed(expected)}
    chosen = tuple(reversed(asked.values()))
    try:
        result = run_expected(runtime.target, path, chosen, second=True)
    except ArtifactError as error:
        opinion = Opinion(runtime.second_opinion, Verdict.FAIL, problems=(str(error),))
        return disputed(replace(check, details=error.details), opinion)
    comparisons = compare_all(chosen, result, check.precision, policy)
    problems = tuple(comparison_problems(comparisons))
    opinion = Opinion(
        runtime=result.runtime,
        verdict=Verdict.FAIL if problems else Verdict.PASS,
        max_abs_error=max(c.max_abs_error for c in comparisons),
        noise_ratio=max(c.noise_ratio for c in comparisons),
        snr_db=min(c.snr_db for c in comparisons),
        problems=problems,
    )
    return disputed(check, opinion)


def disputed(check: Check, opinion: Opinion) -> Check:
    """The check with the problems of a second implementation added."""
    problems = (*check.problems, *(f"{opinion.runtime}: {p}" for p in opinion.problems))
    return replace(check, second_opinion=opinion, problems=problems)
