"""Finds the lowerings in this folder."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from slide_deploy import lowering
from slide_deploy.errors import UnknownName
from slide_deploy.lowering.lowering import Lowering

__all__ = ["CANONICAL", "lowering_named", "lowerings"]

# The lowering that fusion yields. It is possible for every module, so it is the fallback.
CANONICAL = "depthwise"


@cache
def lowerings() -> tuple[Lowering, ...]:
    """All lowerings, by name: the modules of this folder that define `LOWERING`."""
    names = (module.name for module in pkgutil.iter_modules(lowering.__path__))
    modules = (importlib.import_module(f"{lowering.__name__}.{name}") for name in names)
    found = (module.LOWERING for module in modules if hasattr(module, "LOWERING"))
    return tuple(sorted(found, key=lambda known: known.name))


def lowering_named(name: str) -> Lowering:
    """The lowering of this name; UnknownName if there is none."""
    known = {own.name: own for own in lowerings()}
    if name not in known:
        raise UnknownName("lowering", name, known)
    return known[name]
