"""Finds built-in targets by file name and other packages' targets by entry point.

A target is imported on first use.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from slide_deploy.errors import MissingLibrary, UnknownName, UsageError
from slide_deploy.protocols import Exporter, Runtime
from slide_deploy.types import Precision

__all__ = [
    "default_precision",
    "exporter",
    "float_targets",
    "install_command",
    "missing_packages",
    "recognise",
    "require",
    "resolve_targets",
    "runtime",
    "target_names",
]

ALL = "all"

# Tools that read artifacts of our targets, by the names that users may ask for.
_TAKEN_BY_TOOLS = {
    **dict.fromkeys(("tensorrt", "trt"), ("onnx", "trtexec reads it on the device")),
    **dict.fromkeys(("rknn", "rockchip"), ("onnx", "--for rknn writes what rknn-toolkit2 takes")),
    **dict.fromkeys(("vitis", "ryzenai"), ("onnx", "--for vitis writes what AMD's tools take")),
    "snpe": ("onnx", "Qualcomm's converters read it"),
    **dict.fromkeys(("tflite", "litert"), ("onnx", "onnx2tf converts it")),
    "hailo": ("onnx", "the Hailo Dataflow Compiler reads it"),
    "mnn": ("onnx", "MNNConvert reads it"),
    "ncnn": ("torchscript", "pnnx converts it"),
}


@cache
def _places(room: str) -> dict[str, str]:
    """Module path by target name, for `exporters` or `validators`."""
    package = importlib.import_module(f"slide_deploy.{room}")
    own = {
        module.name.replace("_", "-"): f"{package.__name__}.{module.name}"
        for module in pkgutil.iter_modules(package.__path__)
        if not module.name.startswith("_")
    }
    others = {entry.name: entry.value for entry in entry_points(group=f"slide_deploy.{room}")}
    return {**others, **own}


def _find(room: str, attribute: str, name: str) -> Any:
    places = _places(room)
    if name not in places:
        raise UnknownName("target", name, places)
    module, _, own_attribute = places[name].partition(":")
    return getattr(importlib.import_module(module), own_attribute or attribute)


def exporter(target: str) -> Exporter:
    """The exporter of a target; UnknownName if there is none."""
    found: Exporter = _find("exporters", "EXPORTER", target)
    return found


def runtime(target: str) -> Runtime:
    """The runtime that reads a target's artifacts; UnknownName if there is none."""
    found: Runtime = _find("validators", "RUNTIME", target)
    return found


def target_names() -> tuple[str, ...]:
    """Every target that can be exported, sorted."""
    return tuple(sorted(_places("exporters")))


def float_targets() -> tuple[str, ...]:
    """The targets that offer float32, which `all` stands for."""
    return tuple(t for t in target_names() if Precision.FLOAT32 in exporter(t).precisions)


def default_precision(targets: Iterable[str]) -> str:
    """The precision of an export for which none is given: float32, or the first of a target that
    computes with integers only."""
    offered = [exporter(target).precisions for target in targets]
    if any(Precision.FLOAT32 in precisions for precisions in offered):
        return Precision.FLOAT32
    return offered[0][0]


def resolve_targets(names: str | Iterable[str]) -> tuple[str, ...]:
    """Target names for names and aliases, without repeats; `all` is every target that
    offers float32.

    Raises UnknownName for an unknown name, and UsageError if there is no name or one is that of a
    tool that reads artifacts of a target.
    """
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise UsageError("no target was given", f"known: {', '.join(target_names())}, {ALL}")
    known = {name: name for name in target_names()}
    for target in target_names():
        known |= dict.fromkeys(exporter(target).aliases, target)
    chosen: dict[str, None] = {}
    for name in (part.strip().lower() for entry in names for part in entry.split(",")):
        if name == ALL:
            chosen |= dict.fromkeys(float_targets())
        elif name in known:
            chosen[known[name]] = None
        elif name in _TAKEN_BY_TOOLS:
            target, how = _TAKEN_BY_TOOLS[name]
            raise UsageError(
                f"{name!r} is not a target of slide-deploy",
                f"use {target}, which that tool reads ({how})",
            )
        else:
            raise UnknownName("target", name, [*known, ALL], [*target_names(), ALL])
    return tuple(chosen)


def recognise(artifact: Path) -> Runtime:
    """The runtime for an artifact, by its file name; UsageError if there is none."""
    for target in _places("validators"):
        found = runtime(target)
        if found.recognises(artifact):
            return found
    raise UsageError(
        f"{artifact} is not an artifact of a known target",
        f"known: {', '.join(exporter(target).file_name('NAME') for target in target_names())}",
    )


def missing_packages(packages: tuple[str, ...]) -> tuple[str, ...]:
    """The import names that cannot be found; nothing is imported."""
    return tuple(name for name in packages if not _installed(name))


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ImportError:  # an import hook that refuses it
        return False


def require(purpose: str, packages: tuple[str, ...], extra: str) -> None:
    """Raise MissingLibrary, with the install command, if a package is not installed."""
    if missing := missing_packages(packages):
        raise MissingLibrary(purpose, missing, extra, install_command(extra))


def install_command(extra: str) -> str:
    """The command that installs an extra; into an environment of its own, where its packages
    conflict with those of other targets."""
    apart = any(own.own_environment for own in map(exporter, target_names()) if own.extra == extra)
    wanted = f"pip install 'slide-deploy[{extra}]'"
    return f"python -m venv .venv-{extra} && .venv-{extra}/bin/{wanted}" if apart else wanted
