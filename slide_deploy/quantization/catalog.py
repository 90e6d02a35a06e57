"""Finds the schemes in this folder, and those of other packages by entry points."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points

from slide_deploy import quantization
from slide_deploy.errors import UnknownName
from slide_deploy.quantization.scheme import Scheme, same_width

__all__ = ["scheme_named", "scheme_of", "schemes"]


@cache
def schemes() -> tuple[Scheme, ...]:
    """All schemes: the modules of this folder that define `SCHEME`, and entry points."""
    names = sorted(module.name for module in pkgutil.iter_modules(quantization.__path__))
    modules = (importlib.import_module(f"{quantization.__name__}.{name}") for name in names)
    own = [module.SCHEME for module in modules if hasattr(module, "SCHEME")]
    others = [entry.load() for entry in entry_points(group="slide_deploy.schemes")]
    return (*own, *others)


def scheme_named(name: str) -> Scheme:
    """The scheme of this name or alias; UnknownName if there is none."""
    # In reverse, so that a built-in name cannot be replaced.
    known = {
        own: scheme
        for scheme in reversed(schemes())
        for own in (*scheme.aliases, scheme.short_name, scheme.name)
    }
    if name.lower() not in known:
        raise UnknownName("precision", name, known)
    return known[name.lower()]


def scheme_of(weight_type: str, compute_type: str) -> Scheme:
    """The scheme of an artifact with weights of this type, of several the one that computes in
    `compute_type`, signed or unsigned; UnknownName if there is none."""
    found = [scheme for scheme in schemes() if same_width(scheme.weights, weight_type)]
    if not found:
        raise UnknownName("weight type", weight_type, [scheme.weights for scheme in schemes()])
    return next((scheme for scheme in found if same_width(scheme.activations, compute_type)), found[0])
