"""Selects the mutations of a run at random, with a fixed seed."""

from __future__ import annotations

import random
from collections.abc import Mapping

from torch import nn

from benchmarks.mutation.computation import COMPUTATION_KINDS
from benchmarks.mutation.mutation import Kind, Mutation
from benchmarks.mutation.tensors import TENSOR_KINDS

__all__ = ["KINDS", "kind_named", "sampled"]

KINDS: tuple[Kind, ...] = (*TENSOR_KINDS, *COMPUTATION_KINDS)


def kind_named(name: str) -> Kind:
    """The mutation kind with this name."""
    return next(kind for kind in KINDS if kind.name == name)


def sampled(fused: nn.Module, seed: int, counts: Mapping[str, int]) -> tuple[Mutation, ...]:
    """At most `counts[kind]` mutations of each kind; the same for the same seed and model."""
    chosen: list[Mutation] = []
    for kind in KINDS:
        rng = random.Random(f"{seed} {kind.name}")
        candidates = list(kind.candidates(fused, rng))
        chosen += rng.sample(candidates, min(len(candidates), counts[kind.name]))
    return tuple(chosen)
