"""What a mutation is: one mistake at one place of a fused model."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

__all__ = ["Edit", "Kind", "Mutation", "block_of"]

# Copies an artifact with the mistake made in its file: (clean, destination).
Edit = Callable[[Path, Path], None]


@dataclass(frozen=True)
class Mutation:
    """One mistake at one site. `apply` makes it in a fused module, in place.

    `site` is the module that was broken, in the model's own terms. `detail` says how. `edits`
    make it in the file of a target whose converter does not let it through.
    """

    kind: str
    site: str
    detail: str
    apply: Callable[[nn.Module], None]
    edits: Mapping[str, Edit] = field(default_factory=dict)

    @property
    def block(self) -> str:
        """The block that the site belongs to: what a localisation has to name."""
        return block_of(self.site)


@dataclass(frozen=True)
class Kind:
    """One kind of mistake; `candidates` gives one mutation for each site it can happen at.

    A kind that changes tensors only can be made in an artifact's file; one that changes the
    computation goes through the real exporters.
    """

    name: str
    what: str
    candidates: Callable[[nn.Module, random.Random], Iterator[Mutation]]
    tensors_only: bool


def block_of(site: str) -> str:
    """layers.1.blocks.0.attn of layers.1.blocks.0.attn.qkv; layers.0.downsample; norm."""
    parts = re.match(r"layers\.\d+\.(blocks\.\d+\.\w+|downsample)", site)
    return parts[0] if parts else site.partition(".")[0]
