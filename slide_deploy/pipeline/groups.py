"""Exports artifacts of one folder that have different settings, such as their precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slide_deploy.artifacts.manifest import find_manifest
from slide_deploy.loading.loader import Model
from slide_deploy.parity.fresh_probes import new_seed
from slide_deploy.pipeline.export import export_and_verify
from slide_deploy.pipeline.reference import Images
from slide_deploy.report.formats import save_reports
from slide_deploy.types import Options, silent
from slide_deploy.utils.staging import staged_folder
from slide_deploy.verification.baseline import regressions
from slide_deploy.verification.judge import Progress, VerificationPolicy
from slide_deploy.verification.record import Report, overall

__all__ = ["Group", "export_groups"]

CALIBRATED = VerificationPolicy()


@dataclass(frozen=True)
class Group:
    """Targets that are exported with the same options."""

    model: Model
    targets: tuple[str, ...]
    options: Options


def export_groups(
    groups: Sequence[Group],
    output: Path,
    *,
    policy: VerificationPolicy = CALIBRATED,
    images: Images = (),
    baseline: Report | None = None,
    progress: Progress = silent,
    command: str = "",
    seed: int | None = None,
) -> Report:
    """Export and verify each group into `output` in turn; one report of all of them.

    The arguments are those of `export_and_verify`. Groups are of one checkpoint, and no target is
    in two of them. Where a group raises an error, the artifacts of those before it stay.
    """
    seed = new_seed() if seed is None else seed
    reports = [
        export_and_verify(
            *(group.model, group.targets, output, group.options),
            policy=policy,
            images=images,
            baseline=baseline if len(groups) == 1 else None,
            progress=progress,
            command=command,
            seed=seed,
        )
        for group in groups
    ]
    if len(reports) == 1:
        return reports[0]
    checks = tuple(check for report in reports for check in report.checks)
    whole = replace(reports[-1], checks=checks, verdict=overall(checks))
    whole = regressions(whole, baseline) if baseline else whole
    with staged_folder(output) as scratch:
        save_reports(whole, scratch, find_manifest(output))
    return whole
