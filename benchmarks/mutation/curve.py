"""The detection curve: how small a change of one weight is detected, by kind of layer."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from torch import nn

from benchmarks.mutation.bench import Bench
from benchmarks.mutation.equivalence import is_equivalent
from benchmarks.mutation.mutants import broken_module
from benchmarks.mutation.outcome import CurvePoint
from benchmarks.mutation.tensor_patch import patch
from benchmarks.mutation.tensors import one_weight

__all__ = ["CHANGES", "LAYERS", "curve_points", "layer_of"]

CHANGES = (0.3, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 1e-4, 1e-5)
LAYERS = (
    "attention projection",
    "depthwise convolution",
    "other convolution",
    "MLP",
    "norm",
    "bias",
    "positions",
    "head",
)


def layer_of(module: nn.Module, name: str) -> str:
    """The kind of layer that a parameter belongs to."""
    owner_name, _, own = name.rpartition(".")
    owner = module.get_submodule(owner_name)
    if own == "bias":
        return "bias"
    if isinstance(owner, nn.LayerNorm):
        return "norm"
    if isinstance(owner, nn.Conv2d):
        return "other convolution" if owner.groups == 1 else "depthwise convolution"
    if not isinstance(owner, nn.Linear):
        return "positions"
    if ".attn." in name:
        return "attention projection"
    return "MLP" if ".mlp." in name else "head"


def curve_points(
    bench: Bench, layer: str, number: int, seed: int, targets: tuple[str, ...]
) -> list[CurvePoint]:
    """One weight of such a layer, chosen at random, changed less and less.

    The file of one target is changed. The list is empty if the model has no such layer, or if no
    file contains the weight because converters folded it. It ends with the first change within
    the noise: smaller ones are within it too.
    """
    rng = random.Random(f"{seed} {layer} {number}")
    names = [n for n, _ in bench.fused.named_parameters() if layer_of(bench.fused, n) == layer]
    if not names:
        return []
    name, sign = rng.choice(names), rng.choice((-1, 1))
    index = rng.randrange(bench.fused.get_parameter(name).numel())
    points: list[CurvePoint] = []
    with tempfile.TemporaryDirectory(prefix="curve-", dir=bench.folder) as folder:
        for change in CHANGES:
            broken = broken_module(bench, one_weight(name, index, 1 + sign * change))
            made = _patched(bench, broken, targets, number, Path(folder, str(change)))
            if made is None:
                break
            target, path = made
            above = not is_equivalent(bench, broken)
            detected = above and bool(bench.verify(target, path, locate=False).problem)
            site = f"{name}[{index}]"
            points.append(CurvePoint(bench.name, layer, site, target, change, detected, above))
            if not above:
                break
    return points


def _patched(
    bench: Bench, broken: nn.Module, targets: tuple[str, ...], number: int, folder: Path
) -> tuple[str, Path] | None:
    """The first target, from number `number` on, in whose file the weight is found."""
    for step in range(len(targets)):
        target = targets[(number + step) % len(targets)]
        clean = bench.clean(target)
        destination = folder / target / clean.name
        destination.parent.mkdir(parents=True)
        if patch(clean, destination, bench.fused, broken, bench.scheme.weights):
            return target, destination
    return None
