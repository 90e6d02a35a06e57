"""Finds families by the files that exist in this folder, and third parties' by entry points."""

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
    """Every known family; a module of this folder is one where it defines `FAMILY`."""
    names = sorted(module.name for module in pkgutil.iter_modules(models.__path__))
    modules = (importlib.import_module(f"{models.__name__}.{name}") for name in names)
    own = [module.FAMILY for module in modules if hasattr(module, "FAMILY")]
    others = [entry.load() for entry in entry_points(group="slide_deploy.families")]
    return (*own, *others)


def family_named(name: str) -> Family:
    """The family of that name; UnknownName if there is none."""
    known = {family.name: family for family in families()}
    if name not in known:
        raise UnknownName("model family", name, known)
    return known[name]


def simplified(module: nn.Module) -> nn.Module:
    """An equal copy of a fused module in which each family has simplified what it knows.

    A custom model may hold blocks of a family too, so every family is asked.
    """
    for family in families():
        module = family.simplify(module)
    return module
