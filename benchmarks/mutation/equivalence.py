"""The largest effect of a mutation, in float64, over a thousand random inputs.

It is measured on the broken module, because an artifact's rounding would hide small effects.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.mutation.bench import Bench
from benchmarks.mutation.outcome import Effect
from slide_deploy.parity.probes import make_probes

__all__ = ["INPUTS", "LargestEffect", "is_equivalent", "largest_effect", "random_inputs"]

# The random probes, drawn with 200 seeds other than that of verification.
RANDOM = ("normal", "patchwork", "impulses", "large", "tiny")
SEEDS = range(1, 201)
INPUTS = len(RANDOM) * len(SEEDS)
CHUNK = 100


@dataclass(frozen=True)
class _Sound:
    """Inputs of one kind, with the float64 outputs and the noise of the precision."""

    inputs: Tensor
    outputs: Tensor
    noise: float


def random_inputs(bench: Bench) -> Mapping[str, np.ndarray]:
    """The thousand inputs, by probe."""
    (spec,) = bench.model.inputs
    draws: dict[str, list[np.ndarray]] = {name: [] for name in RANDOM}
    for seed in SEEDS:
        for probe in make_probes((spec,), seed):
            if probe.name in draws:
                draws[probe.name].append(probe.inputs[spec.name])
    return {name: np.concatenate(arrays) for name, arrays in draws.items()}


@dataclass(frozen=True)
class LargestEffect:
    """The largest effect of a mutation, and the input on which it occurs."""

    effect: Effect
    inputs: Mapping[str, np.ndarray]


def largest_effect(bench: Bench, broken: nn.Module) -> LargestEffect:
    """The largest change of an output relative to the noise."""
    (spec,) = bench.model.inputs
    exact = _meant(bench, broken)
    found = []
    for sound in _sound(bench):
        change = _change(exact, sound.inputs, sound.outputs)
        index = int(change.argmax())
        image = sound.inputs[index : index + 1].float().numpy()
        found.append(LargestEffect(Effect(float(change[index]), sound.noise), {spec.name: image}))
    return max(found, key=lambda one: one.effect.change / one.effect.noise)


def is_equivalent(bench: Bench, broken: nn.Module) -> bool:
    """Whether `largest_effect` is equivalent; stops at the first inputs that show it is not."""
    exact = _meant(bench, broken)
    return not any(
        bool((_change(exact, inputs, outputs) > sound.noise).any())
        for sound in _sound(bench)
        for inputs, outputs in zip(
            sound.inputs.split(CHUNK), sound.outputs.split(CHUNK), strict=True
        )
    )


@cache
def _sound(bench: Bench) -> tuple[_Sound, ...]:
    """Kinds of inputs on which the model overflows at the precision are left out."""
    exact = _meant(bench, bench.fused)
    render = bench.scheme.render
    rounding = render(bench.model.module) if render else bench.model.module
    found = []
    for array in random_inputs(bench).values():
        inputs = torch.from_numpy(array)
        outputs = _run(exact, inputs.double())
        rounded = _run(rounding, inputs.half() if render else inputs).double()
        noise = float((rounded - outputs).abs().max())
        if math.isfinite(noise):
            found.append(_Sound(inputs.double(), outputs, noise))
    return tuple(found)


def _meant(bench: Bench, module: nn.Module) -> nn.Module:
    """What an artifact of `module` is meant to compute: float64, with weights as it stores them."""
    rounded = bench.scheme.rounded
    return rounded(module) if rounded else copy.deepcopy(module).double()


def _change(exact: nn.Module, inputs: Tensor, outputs: Tensor) -> Tensor:
    """The largest change of each input's outputs."""
    change = (_run(exact, inputs) - outputs).nan_to_num(nan=float("inf")).abs()
    return change.flatten(1).amax(1)


def _run(module: nn.Module, inputs: Tensor) -> Tensor:
    with torch.inference_mode():
        return torch.cat([module(chunk) for chunk in inputs.split(CHUNK)])
