"""slide-deploy profiles, and the option --for of export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from slide_deploy.cli.options import chosen_precision, output_option, target_option
from slide_deploy.errors import UsageError

__all__ = ["Chosen", "ForProfile", "Targets", "chosen_for", "profiles"]

Targets = Annotated[list[str] | None, target_option(show_default="that of --for")]
ForProfile = Annotated[
    str | None,
    output_option(
        "--for",
        metavar="PROFILE",
        help="Kind of device, such as iphone: chooses target, precision, input and batch, which "
        "other options override. `slide-deploy profiles` lists them.",
    ),
]


@dataclass(frozen=True)
class Chosen:
    """What an export shall be: the options that were given, and else those of the profile."""

    targets: list[str]
    precision: str
    preprocess: str | None
    dynamic: bool
    opset: int | None
    profile: str
    notes: tuple[str, ...]


def chosen_for(
    name: str | None,
    targets: list[str] | None,
    precision: str | None,
    preprocess: str | None,
    batch: int,
    opset: int | None,
    *,
    half: bool,
    dynamic: bool,
) -> Chosen:
    """The options with those of the profile `name` filled in, and its reasons as notes.

    Raises UsageError where neither a profile nor a target is given.
    """
    from slide_deploy.packaging.profiles import profile_named
    from slide_deploy.registry import default_precision, resolve_targets

    if name is None:
        if not targets:
            raise UsageError(
                "neither --target nor --for is given", "add -t all, or --for iphone, …"
            )
        if precision is None and not half:
            precision = default_precision(resolve_targets(targets))
        precision = chosen_precision(precision, half=half)
        return Chosen(targets, precision, preprocess, dynamic, opset, "", ())
    profile = profile_named(name)
    given = {
        "target": targets,
        "precision": precision or half,
        "preprocess": preprocess,
        "batch": dynamic or batch != 1,
        "opset": opset or targets,
    }
    return Chosen(
        targets=targets or [profile.target.value],
        precision=chosen_precision(
            precision or (None if half else profile.precision.value), half=half
        ),
        preprocess=preprocess or profile.preprocess.value,
        dynamic=dynamic or (profile.batch.value == "any" and batch == 1),
        opset=int(profile.opset.value) if profile.opset and not given["opset"] else opset,
        profile=profile.name,
        notes=profile.lines(without=[key for key, value in given.items() if value]),
    )


def profiles() -> None:
    """List the profiles of `export --for`, with what each of them chooses."""
    from slide_deploy.report.profiles import profiles_table
    from slide_deploy.report.terminal import make_console

    make_console().print(profiles_table())
