"""Checks the options of an export against its targets, before any work begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from slide_deploy import registry
from slide_deploy.errors import UsageError
from slide_deploy.packaging.profiles import takes_samples
from slide_deploy.protocols import Exporter
from slide_deploy.quantization.calibration import SYNTHETIC
from slide_deploy.quantization.catalog import scheme_named
from slide_deploy.quantization.scheme import Scheme
from slide_deploy.types import Options

__all__ = ["float_options", "option_notes", "options_by_target"]


def options_by_target(targets: Sequence[str], options: Options) -> dict[str, Options]:
    """The options of each target: the common ones, and its own with parsed values.

    An alias of a precision becomes its name. Raises UsageError for an option that none of
    `targets` has, a value that a target refuses, a precision that a target does not support, and
    a calibration set that is missing or of no use; UnknownName for a target or precision that does
    not exist.
    """
    exporters = [registry.exporter(target) for target in targets]
    scheme = scheme_named(options.precision)
    options = replace(options, precision=scheme.name)
    for name in options.of_targets:
        if not any(_has(exporter, name) for exporter in exporters):
            raise _no_such_option(name, exporters)
    found = {exporter.target: _options_of(exporter, options) for exporter in exporters}
    calibration = _calibration(scheme, options)
    return {target: replace(own, calibration=calibration) for target, own in found.items()}


def float_options(target: str, options: Options) -> Options:
    """As `options_by_target`, of a float artifact, which may be one that quantized ones are made
    from."""
    exporter = registry.exporter(target)
    scheme = scheme_named(options.precision)
    if scheme.name == exporter.quantized_from:
        return _parsed(exporter, replace(options, precision=scheme.name))
    return options_by_target((target,), options)[exporter.target]


def _calibration(scheme: Scheme, options: Options) -> str | Path | None:
    """The calibration set that an export needs; UsageError where it is missing or of no use."""
    given = options.calibration
    if scheme.needs_calibration and given is None:
        raise UsageError(
            f"precision {scheme.name} needs a calibration set, to measure the ranges of "
            "activations on",
            "pass --calibration with a folder of images or a .npz file of at least 32 inputs, or "
            f"--calibration {SYNTHETIC}",
        )
    if options.min_snr is not None and not scheme.quantized:
        raise UsageError(
            f"precision {scheme.name} keeps every part in float", "omit --min-snr, or use w8a8"
        )
    if options.smooth and not scheme.needs_calibration:
        raise UsageError(
            f"precision {scheme.name} does not quantize activations, which SmoothQuant is for",
            "omit --smooth, or use w8a8",
        )
    if given is not None and not scheme.quantized and not takes_samples(options.profile):
        raise UsageError(f"precision {scheme.name} needs no calibration set", "omit --calibration")
    # Where no range is measured on it, the cost is.
    return SYNTHETIC if given is None and scheme.quantized else given


def option_notes(targets: Sequence[str], options: Options) -> tuple[str, ...]:
    """One line for each option that applies to some of `targets` only."""
    exporters = [registry.exporter(target) for target in targets]

    def notes() -> Iterator[str]:
        for name, value in options.of_targets.items():
            having = [exporter.target for exporter in exporters if _has(exporter, name)]
            if 0 < len(having) < len(exporters):
                yield f"{_flag(name, value)} applies to {', '.join(having)} only"

    return tuple(notes())


def _options_of(exporter: Exporter, options: Options) -> Options:
    if options.precision not in exporter.precisions:
        why = exporter.lacks.get(options.precision, "its exporter does not write it")
        raise UsageError(
            f"{exporter.title} does not support precision {options.precision}: {why}",
            f"{exporter.target} supports {', '.join(exporter.precisions)}",
        )
    has_settings = scheme_named(options.precision).needs_calibration
    if options.min_snr is not None and exporter.products is None and not has_settings:
        raise UsageError(
            f"{exporter.title} cannot keep parts of a {options.precision} artifact in float",
            f"omit --min-snr, or use {' or '.join(_searching())}",
        )
    return _parsed(exporter, options)


def _parsed(exporter: Exporter, options: Options) -> Options:
    """The options with those of the target alone, parsed."""
    given = options.of_targets
    own = {o.name: o.parse(given[o.name]) for o in exporter.options if o.name in given}
    return options.with_target_options(own)


def _searching() -> list[str]:
    """The targets that can keep parts of a quantized artifact in float."""
    return [t for t in registry.target_names() if registry.exporter(t).products is not None]


def _no_such_option(name: str, exporters: list[Exporter]) -> UsageError:
    titles = " and ".join(exporter.title for exporter in exporters)
    having = [t for t in registry.target_names() if _has(registry.exporter(t), name)]
    every = {option.name for exporter in exporters for option in exporter.options}
    if having:
        way_out = f"it is an option of {', '.join(having)}: omit it, or add -t {having[0]}"
    elif every:
        way_out = f"their options are {', '.join(map(_flag, sorted(every)))}"
    else:
        way_out = "omit it: these targets have no options of their own"
    verb = "has" if len(exporters) == 1 else "have"
    return UsageError(f"{titles} {verb} no option {_flag(name)}", way_out)


def _has(exporter: Exporter, name: str) -> bool:
    return any(option.name == name for option in exporter.options)


def _flag(name: str, value: object = None) -> str:
    """The command-line spelling of an option."""
    if name in ("opset", "deployment_target"):
        return f"--{name.replace('_', '-')}" + ("" if value is None else f" {value}")
    return f"--option {name}" + ("" if value is None else f"={value}")
