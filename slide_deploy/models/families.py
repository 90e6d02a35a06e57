"""Finds the families in this folder, and those of other packages by entry points."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points

from torch import nn

from slide_deploy import models
from slide_deploy.errors import UnknownName
from slide_deploy.models.family import Family

__all__ = ["families", "family_named", "simplified"]


@cache
def families() -> tuple[Family, ...]:
    """All families: the modules of this folder that define `FAMILY`, and entry points."""
    names = sorted(module.name for module in pkgutil.iter_modules(models.__path__))
    modules = (importlib.import_module(f"{models.__name__}.{name}") for name in names)
    own = [module.FAMILY for module in modules if hasattr(module, "FAMILY")]
    others = [entry.load() for entry in entry_points(group="slide_deploy.families")]
    return (*own, *others)


def family_named(name: str) -> Family:
    """The family of this name; UnknownName if there is none."""
    known = {family.name: family for family in families()}
    if name not in known:
        raise UnknownName("model family", name, known)
    return known[name]


def simplified(module: nn.Module) -> nn.Module:
    """An equivalent copy of a fused module, simplified by all families.

    All families, because a custom model may contain blocks of any family.
    """
    for family in families():
        module = family.simplify(module)
    return module
