"""A command whose options have their defaults in the project file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from typer.core import TyperCommand

from slide_deploy.cli.options import output_option
from slide_deploy.cli.project import FILE_NAME, Project, read_project
from slide_deploy.errors import UsageError
from slide_deploy.types import Options

__all__ = ["ConfigFile", "Configured", "Settings"]

ConfigFile = Annotated[
    Path | None,
    output_option(
        "--config",
        metavar="FILE",
        help="Project file, which has the settings that are not given as options.",
        show_default=f"{FILE_NAME} in the working folder, if there is one",
    ),
]

# The settings that are not used where an option is given that chooses something else instead.
_REPLACED = {
    "half": ("precision",),
    "target": ("profile",),
    "profile": ("target", "precision", "preprocess", "batch", "dynamic"),
    "batch": ("dynamic",),
    "dynamic": ("batch",),
}
_OF_PRECISION = ("half", "precision", "profile")

# Settings that are paths, relative to the folder of the project file, but for these words.
_PATHS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("model", "output", "labels", "baseline", "images"), ()),
    "calibration": ("synthetic",),
    "data": ("digits",),
    "preprocess": ("auto", "imagenet", "none"),
}


@dataclass(frozen=True)
class Settings:
    """What the project file adds to the options of the command line.

    `used` names the options that have their value from it; `of_targets` are options of single
    targets, `precisions` those that replace the common one.
    """

    path: Path
    used: frozenset[str]
    precisions: Mapping[str, str] = field(default_factory=dict)
    of_targets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def note(self) -> str:
        """What the reader of a report has to know."""
        return f"settings that are not given as options are those of {self.path}"

    def options_of(self, target: str, options: Options) -> Options:
        """The options of a target, with those that only it has in the file; UnknownName for a
        precision that does not exist.

        What the file says of quantization is of no use to a precision that is not quantized.
        """
        from slide_deploy.packaging.profiles import takes_samples
        from slide_deploy.quantization.catalog import scheme_named

        scheme = scheme_named(self.precisions.get(target, options.precision))
        if not scheme.quantized and not takes_samples(options.profile):
            unused = {"calibration", "min_snr", "smooth"} & self.used
            options = replace(options, **dict.fromkeys(unused))  # type: ignore[arg-type]  # by name
        own = {**self.of_targets.get(target, {}), **options.of_targets}
        return replace(options, precision=scheme.name).with_target_options(own)


class Configured(TyperCommand):
    """Reads the project file before the options get their values. `Settings` are the context's
    `obj`, which is None where there is no such file."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        parsed, *_ = self.make_parser(ctx).parse_args(list(args))
        given = {name: value for name, value in parsed.items() if value is not None}
        asks_for_help = ctx.resilient_parsing or "help" in given
        if path := None if asks_for_help else _project_file(given):
            ctx.default_map, ctx.obj = settings_of(read_project(path), path, given)
        return super().parse_args(ctx, args)


def _project_file(given: Mapping[str, Any]) -> Path | None:
    """The file to read; the settings of a manifest are complete."""
    named = given.get("config")
    if "manifest" in given:
        if named is not None:
            raise UsageError("--from and --config exclude each other", "omit one of them")
        return None
    if named is None:
        return Path(FILE_NAME) if Path(FILE_NAME).is_file() else None
    return Path(named)


def settings_of(
    project: Project, path: Path, given: Collection[str]
) -> tuple[dict[str, Any], Settings]:
    """The values of options that are not in `given`, and the settings that are no options."""
    found = {**vars(project), **vars(project.gates)}
    del found["gates"], found["target"]
    found["target"] = list(found.pop("targets") or ()) or None
    values = {name: value for name, value in found.items() if value is not None}
    for name in {*given, *(replaced for option in given for replaced in _REPLACED.get(option, ()))}:
        values.pop(name, None)
    for name, words in _PATHS.items():
        if name in values and values[name] not in words:
            values[name] = str(path.parent / values[name])
    tables = {name: _table(table) for name, table in _of_targets(project, path).items()}
    precisions = {t: table.pop("precision") for t, table in tables.items() if "precision" in table}
    if not set(_OF_PRECISION).isdisjoint(given):
        precisions = {}
    return values, Settings(path, frozenset(values), precisions, tables)


def _of_targets(project: Project, path: Path) -> dict[str, Mapping[str, object]]:
    """The tables [target.NAME] by target; UsageError for another name."""
    from slide_deploy import registry

    try:
        return {
            target: table
            for name, table in project.target.items()
            for target in registry.resolve_targets(name)
        }
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", error.hint) from error


def _table(table: Mapping[str, object]) -> dict[str, str]:
    return {name.replace("-", "_"): str(value) for name, value in table.items()}
