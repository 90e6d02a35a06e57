"""Selects the lowering of each attention.

`auto` takes the fastest lowering that `tune` measured on this machine for these shapes, or else
that of the table in `defaults.json`, measured per runtime (and precision, where another lowering is
the fastest) and processor family. If it cannot express a module, the canonical lowering is used.
`low-memory` takes the smallest peak memory.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import torch
from torch import nn

from slide_deploy.errors import UnknownName
from slide_deploy.lowering.catalog import CANONICAL, lowering_named, lowerings
from slide_deploy.lowering.lowering import ImpossibleLowering
from slide_deploy.lowering.memory import low_memory
from slide_deploy.lowering.replacement import lower
from slide_deploy.models.slide_attention import AttentionConfig, FusedSlideAttention
from slide_deploy.types import LayerLowering, Precision, TensorSpec

__all__ = ["AUTO", "LOW_MEMORY", "check_name", "lower_for", "processor_family", "shape_key"]

AUTO, LOW_MEMORY = "auto", "low-memory"


@dataclass(frozen=True)
class _Chosen:
    lowering: str
    why: str


_Strategy = Callable[[str, AttentionConfig, tuple[int, int]], _Chosen]


def lower_for(
    model: nn.Module,
    inputs: tuple[TensorSpec, ...],
    asked: str,
    runtime: str,
    tuned: Mapping[str, str],
    *,
    precision: str = Precision.FLOAT32,
    any_size: bool = False,
    recorded: tuple[LayerLowering, ...] = (),
) -> tuple[nn.Module, tuple[LayerLowering, ...]]:
    """A fused `model` lowered for `runtime` at a precision, and the lowering of each layer with the
    reason.

    `tuned` maps `shape_key`s to the fastest lowerings on this machine; with `any_size`, lowerings
    must be valid for maps of any height and width. `recorded` lowerings, of an earlier export, are
    used again, with the reasons of then. Raises UnknownName for an unknown lowering, and
    ImpossibleLowering if a lowering given by name is not possible for a module or for any size.
    """
    chosen: dict[str, _Chosen] = {}
    strategy = _of_any_size(asked) if any_size else _strategy(asked, runtime, tuned, precision)
    earlier = {layer.layer: _Chosen(layer.form, layer.why) for layer in recorded}

    def choose(name: str, config: AttentionConfig, resolution: tuple[int, int]) -> str:
        chosen[name] = earlier.get(name) or strategy(name, config, resolution)
        return chosen[name].lowering

    lowered, choices = lower(model, inputs, choose)
    return lowered, tuple(LayerLowering(c.name, c.lowering, chosen[c.name].why) for c in choices)


def check_name(asked: str) -> None:
    """Raise UnknownName unless `asked` is a lowering's name, `auto` or `low-memory`."""
    known = [AUTO, LOW_MEMORY, *(own.name for own in lowerings())]
    if asked not in known:
        raise UnknownName("lowering", asked, known)


def shape_key(config: AttentionConfig, resolution: tuple[int, int]) -> str:
    """The sizes of a module and its map, on which the latency of a lowering depends, as text."""
    return json.dumps([list(vars(config).values()), list(resolution)])


def processor_family() -> str:
    """The row of the table: "x86", "apple", "arm" or "other"."""
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64", "i686"):
        return "x86"
    if machine in ("arm64", "aarch64"):
        return "apple" if sys.platform == "darwin" else "arm"
    return "other"


def _of_any_size(asked: str) -> _Strategy:
    check_name(asked)
    if asked in (AUTO, LOW_MEMORY):
        return lambda *_: _Chosen(CANONICAL, "height and width are free")
    if not lowering_named(asked).any_size:
        fitting = ", ".join(own.name for own in lowerings() if own.any_size)
        raise ImpossibleLowering(
            f"the lowering {asked} needs maps of fixed height and width",
            f"use {fitting}, or omit --dynamic-size",
        )
    return lambda *_: _Chosen(asked, "asked for")


def _strategy(asked: str, runtime: str, tuned: Mapping[str, str], precision: str) -> _Strategy:
    check_name(asked)
    if asked == LOW_MEMORY:
        return lambda *sizes: _Chosen(low_memory(*sizes), "smallest peak memory")
    if asked != AUTO:
        return lambda *_: _Chosen(asked, "asked for")

    def automatic(name: str, config: AttentionConfig, resolution: tuple[int, int]) -> _Chosen:
        fastest = tuned.get(shape_key(config, resolution))
        known = {own.name for own in lowerings()}
        wanted = (
            _Chosen(fastest, "tuned on this machine")
            if fastest in known
            else _by_table(runtime, precision)
        )
        return _possible(wanted, config)

    return automatic


def _by_table(runtime: str, precision: str) -> _Chosen:
    table = _table()
    forms = table["forms"]
    row = forms.get(f"{runtime} {precision}", forms.get(runtime))
    if row is None:
        return _Chosen(CANONICAL, f"the table has no measurements for {runtime}")
    family = processor_family()
    kind = family if family in row else "other"
    if len(row) == 1:
        return _Chosen(row[kind], f"default for {runtime}")
    return _Chosen(row[kind], f"table of {table['measured']['date']}, {kind} processors")


@cache
def _table() -> Any:
    return json.loads(files(__package__).joinpath("defaults.json").read_text(encoding="utf-8"))


def _possible(wanted: _Chosen, config: AttentionConfig) -> _Chosen:
    try:
        with torch.device("meta"):
            lowering_named(wanted.lowering).build(FusedSlideAttention(config))
    except ImpossibleLowering as error:
        return _Chosen(CANONICAL, f"{wanted.lowering} is not possible: {error.message}")
    return wanted
