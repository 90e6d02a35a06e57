"""A mutation is one error at one site of a fused model."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

__all__ = ["Edit", "Kind", "Mutation"]

# (clean, destination): copies an artifact and makes the error in its file.
Edit = Callable[[Path, Path], None]


@dataclass(frozen=True)
class Mutation:
    """`apply` makes the error in a fused module, in place.

    `site` is the name of the broken submodule and `detail` describes the error. `edits` make it in
    the file, for targets whose converter would correct it.
    """

    kind: str
    site: str
    detail: str
    apply: Callable[[nn.Module], None]
    edits: Mapping[str, Edit] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """One kind of error; `candidates` yields a mutation for each possible site.

    Errors with `tensors_only` are made in the artifact's file, the others before the real export.
    """

    name: str
    description: str
    candidates: Callable[[nn.Module, random.Random], Iterator[Mutation]]
    tensors_only: bool
