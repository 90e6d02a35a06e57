"""Exports artifacts of one folder that have different settings, such as their precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slide_deploy import registry
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

__all__ = ["Group", "export_groups", "joined"]

CALIBRATED = VerificationPolicy()


@dataclass(frozen=True)
class Group:
    """Targets that are exported with the same options."""

    model: Model
    targets: tuple[str, ...]
    options: Options


def joined(groups: Sequence[Group]) -> tuple[Group, ...]:
    """Fewer groups, of targets that can be exported together, which is quicker: their models are
    the same, and all options but those that only one of them has."""
    found: list[Group] = []
    for group in groups:
        alike = next((other for other in found if _alike(other, group)), None)
        if alike is None:
            found.append(group)
        else:
            found[found.index(alike)] = _both(alike, group)
    return tuple(found)


def _alike(one: Group, other: Group) -> bool:
    common = [replace(g.options.with_target_options({}), lowered={}) for g in (one, other)]
    if one.model is not other.model or common[0] != common[1]:
        return False
    return _suits(one, other) and _suits(other, one)


def _suits(one: Group, other: Group) -> bool:
    """Whether the options of one group leave the targets of the other as they are."""
    given, others = one.options.of_targets, other.options.of_targets
    own = {o.name for target in other.targets for o in registry.exporter(target).options}
    return all(others.get(name) == value for name, value in given.items() if name in own)


def _both(one: Group, other: Group) -> Group:
    own = {**one.options.of_targets, **other.options.of_targets}
    lowered = {**one.options.lowered, **other.options.lowered}
    options = replace(one.options.with_target_options(own), lowered=lowered)
    return Group(one.model, (*one.targets, *other.targets), options)


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
