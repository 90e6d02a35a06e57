"""Compares a report with a baseline: artifacts that got worse fail, even within their gates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from slide_deploy.types import Verdict
from slide_deploy.verification.record import Check, Report, overall

__all__ = ["NOISE_GROWTH", "QUIET", "regressions"]

# Another order of summation, in other versions and on other CPUs, changes a noise ratio by less
# than this factor; a wrong weight changes it by orders of magnitude.
NOISE_GROWTH = 2.0

# The float32 exports of the digits and micro_official models have 0.8 to 2.4 times the noise,
# depending on the target. In this range another order of summation may double the ratio.
QUIET = 3.0


def regressions(new: Report, old: Report) -> Report:
    """The new report, with regressions since `old` added as problems.

    A regression is a noise ratio above `NOISE_GROWTH` times the old one and above `QUIET`, a new
    kind of operator, a new custom operator, or a target that ran in `old` and not in `new`.
    Artifacts are paired by target and precision, and by name if there are several. A baseline of
    other weights is a problem, too.
    """
    if other := _other_source(new, old):
        checks = tuple(_with_problems(check, (other,)) for check in new.checks)
        return replace(new, checks=checks, verdict=overall(checks))
    pairs = [(check, _partner(check, old.checks)) for check in new.checks]
    judged = [_judged(check, before) if before else check for check, before in pairs]
    found = [id(before) for _, before in pairs]
    lost = [_lost(check) for check in old.checks if _ran(check) and id(check) not in found]
    checks = (*judged, *lost)
    return replace(new, checks=checks, verdict=overall(checks))


def _other_source(new: Report, old: Report) -> str:
    """What to say of a baseline that was made from other weights; empty where they are the same."""
    if new.source.same_weights(old.source):
        return ""
    return (
        f"source changed: the baseline is of {old.source}, this run of {new.source}; "
        "commit a new baseline"
    )


def _judged(check: Check, before: Check) -> Check:
    return _with_problems(check, tuple(_worse(check, before)))


def _with_problems(check: Check, problems: tuple[str, ...]) -> Check:
    if not problems:
        return check
    return replace(check, verdict=Verdict.FAIL, problems=(*check.problems, *problems))


def _worse(check: Check, before: Check) -> Iterator[str]:
    if _ran(before) and check.verdict is Verdict.NOT_RUN:
        yield "ran in the baseline, did not run now"
    ratio, was = check.noise_ratio, before.noise_ratio
    # The interpreter and the vendor's runtime round differently.
    comparable = check.fidelity is before.fidelity
    if (
        comparable
        and ratio is not None
        and was is not None
        and ratio > QUIET
        and ratio > NOISE_GROWTH * was
    ):
        yield (
            f"the error is {ratio:.1f} times the noise, compared with {was:.1f} in the baseline"
            f"{_other_runtime(check, before)}"
        )
    if check.operators is not None and before.operators is not None:
        for name in sorted(check.operators.keys() - before.operators.keys()):
            yield f"operator {name} is not in the baseline{_other_runtime(check, before)}"
    for name in sorted(set(check.custom_operators) - set(before.custom_operators)):
        yield f"custom operator {name} is not in the baseline"


def _other_runtime(check: Check, before: Check) -> str:
    if check.runtime == before.runtime:
        return ""
    return f" (which ran on {before.runtime}; this on {check.runtime})"


def _lost(before: Check) -> Check:
    """The check of an artifact that is only in the baseline."""
    return Check(
        target=before.target,
        path=before.path,
        precision=before.precision,
        verdict=Verdict.FAIL,
        problems=("is in the baseline, but was not checked now",),
    )


def _ran(check: Check) -> bool:
    return check.verdict is not Verdict.NOT_RUN


def _partner(check: Check, others: Sequence[Check]) -> Check | None:
    alike = [o for o in others if (o.target, o.precision) == (check.target, check.precision)]
    named = [other for other in alike if other.path == check.path]
    if named:
        return named[0]
    return alike[0] if len(alike) == 1 else None
