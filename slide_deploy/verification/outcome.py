"""The report of several checks."""

from __future__ import annotations

from slide_deploy.artifacts.manifest import toolchain
from slide_deploy.verification.judge import Reference
from slide_deploy.verification.record import Check, Report, now, overall

__all__ = ["report_of"]


def report_of(
    reference: Reference, checks: tuple[Check, ...], command: str, notes: tuple[str, ...] = ()
) -> Report:
    """The report of `checks`, of a run that ends now."""
    return Report(
        verdict=overall(checks),
        source=reference.source,
        model=reference.name,
        reference=reference.reference,
        checks=checks,
        command=_repeating(command, reference.seed),
        toolchain=toolchain(),
        notes=notes,
        date=now(),
        seed=reference.seed,
    )


def _repeating(command: str, seed: int | None) -> str:
    """The command that draws the same probes."""
    told = seed is None or not command or "--seed" in command
    return command if told else f"{command} --seed {seed}"
