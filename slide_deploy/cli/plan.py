"""What `export` makes, from its options or from the manifest of an earlier export."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slide_deploy.cli.model import read_model
from slide_deploy.cli.options import output_option
from slide_deploy.cli.outcome import Reporting, command_line
from slide_deploy.errors import UsageError

if TYPE_CHECKING:
    from slide_deploy.cli.configured import Settings
    from slide_deploy.cli.profiles import Chosen
    from slide_deploy.loading.loader import Model
    from slide_deploy.pipeline.groups import Group
    from slide_deploy.pipeline.replay import Recorded
    from slide_deploy.types import Loading, Options
    from slide_deploy.verification.judge import Progress, VerificationPolicy
    from slide_deploy.verification.record import Report

__all__ = ["FromManifest", "Plan", "plan_again", "plan_of", "refuse_beside_manifest", "run_plan"]

FromManifest = Annotated[
    Path | None,
    output_option(
        "--from",
        metavar="MANIFEST",
        help="manifest.json of an earlier export, whose artifacts are made again with the same "
        "settings and compared with the earlier ones.",
    ),
]

# What may be given beside --from: places of files, and what does not change artifacts.
BESIDE_MANIFEST = (
    *("manifest", "model", "output", "factory", "calibration", "atol", "rtol", "max_drop"),
    *("thorough", "trace", "images", "seed", "baseline", "report", "as_json", "quiet", "verbose"),
)


@dataclass(frozen=True)
class Plan:
    """Groups of targets, the folder that they are written to, and notes on them."""

    groups: tuple[Group, ...]
    folder: Path
    notes: tuple[str, ...]
    recorded: Recorded | None = None


def run_plan(
    reporting: Reporting,
    policy: VerificationPolicy,
    images: Path | None,
    baseline: Report | None,
    seed: int | None,
    make: Callable[[Progress], Plan],
) -> None:
    """Make the plan, export and verify, print and write the report, and exit with its code."""
    with reporting.progress() as progress:
        plan = make(progress)
        from slide_deploy.pipeline.groups import export_groups
        from slide_deploy.pipeline.replay import with_replay

        report = export_groups(
            *(plan.groups, plan.folder),
            policy=policy,
            images=images or (),
            baseline=baseline,
            progress=progress,
            command=command_line(),
            seed=seed,
        )
        if plan.recorded:
            report = with_replay(report, plan.recorded, plan.folder)
    reporting.finish(report, plan.notes, plan.folder, trace=policy.trace)


def plan_of(
    path: Path | None,
    output: Path | None,
    chosen: Chosen,
    options: Options,
    read: Callable[[], Model],
    settings: Settings | None,
    progress: Progress,
) -> Plan:
    """The plan of the options of the command line, and of the `settings` in the project file;
    `read` loads the model."""
    from slide_deploy import registry
    from slide_deploy.artifacts.options import option_notes

    targets = registry.resolve_targets(chosen.targets)
    options = replace(options, profile=chosen.profile)
    wanted = _wanted(targets, options, settings)
    _check(wanted)
    notes = option_notes(targets, options) + ((settings.note,) if settings else ())
    progress(f"loading {path.name if path else 'the model'}")
    model = read()
    from slide_deploy.pipeline.groups import Group, joined

    groups = joined([Group(model, names, own) for names, own in wanted])
    folder = output or Path(f"{model.name}-{'features-deploy' if model.features else 'deploy'}")
    next_notes = _next_notes(wanted, model.name)
    return Plan(groups, folder, (*model.notes, *chosen.notes, *notes, *next_notes))


def plan_again(
    manifest: Path,
    model: Path | None,
    output: Path | None,
    factory: str | None,
    calibration: str | None,
    progress: Progress,
) -> Plan:
    """The plan to make the artifacts of a manifest again."""
    from slide_deploy import registry

    registry.require("reading a model", ("torch",), "torch")
    from slide_deploy.pipeline.replay import groups_of, read_recorded

    recorded = read_recorded(manifest)
    progress(f"loading {recorded.manifest.source.path_name}")
    groups = groups_of(recorded, model, calibration, partial(_read_again, factory))
    folder = output or Path(f"{groups[0].model.name}-again")
    if folder.resolve() == recorded.folder.resolve():
        raise UsageError(
            f"{folder} is the folder of the manifest, whose artifacts are compared with the new "
            "ones",
            "choose another --output",
        )
    notes = dict.fromkeys(note for group in groups for note in group.model.notes)
    return Plan(groups, folder, tuple(notes), recorded)


def _read_again(factory: str | None, path: Path, loading: Loading) -> Model:
    """Read a model; the user must name the factory of a custom one, since it is their code."""
    if (factory or "") != loading.factory:
        wanted = f"add --model {loading.factory}" if loading.factory else "omit --model"
        raise UsageError(
            f"the manifest's model was made by {loading.factory or 'no factory'}, and --model is "
            f"{factory or 'not given'}",
            f"{wanted}, if you trust it",
        )
    return read_model(path, loading)


def refuse_beside_manifest(context: typer.Context) -> None:
    """Raise UsageError for options that would change what --from makes."""
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name not in BESIDE_MANIFEST and source and source.name == "COMMANDLINE":
            raise UsageError(
                f"--from and {parameter.opts[0]} exclude each other: the manifest has the settings",
                "omit one of them",
            )


def _wanted(
    targets: tuple[str, ...], options: Options, settings: Settings | None
) -> list[tuple[tuple[str, ...], Options]]:
    """Targets with their options: each target by itself where there is a project file."""
    if settings is None:
        return [(targets, options)]
    given = options.of_targets
    shared = [name for name in given if not any(_has(target, name) for target in targets)]
    wanted: list[tuple[tuple[str, ...], Options]] = []
    for target in targets:
        own = {name: given[name] for name in given if name in shared or _has(target, name)}
        wanted.append(((target,), settings.options_of(target, options.with_target_options(own))))
    return wanted


def _next_notes(wanted: list[tuple[tuple[str, ...], Options]], model: str) -> Iterator[str]:
    """The commands that vendors' tools need next."""
    from slide_deploy import registry
    from slide_deploy.packaging.next_step import next_step, samples_folder

    for targets, options in wanted:
        samples = samples_folder(model) if options.calibration else ""
        for target in targets:
            path = registry.exporter(target).file_name(model)
            step = next_step(options.profile, target, path, samples)
            for command in step.commands if step else ():
                yield f"{options.profile}: next: {command}"


def _has(target: str, name: str) -> bool:
    from slide_deploy import registry

    return any(option.name == name for option in registry.exporter(target).options)


def _check(wanted: list[tuple[tuple[str, ...], Options]]) -> None:
    """Raise UsageError for an option that no target has, and MissingLibrary if the only target
    cannot be written here."""
    from slide_deploy import registry
    from slide_deploy.artifacts.options import options_by_target

    for targets, options in wanted:
        options_by_target(targets, options)
    names = [target for targets, _ in wanted for target in targets]
    if len(names) == 1:
        exporter = registry.exporter(names[0])
        registry.require(f"export to {exporter.title}", exporter.packages, exporter.extra)
