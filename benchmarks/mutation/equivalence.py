"""The largest effect of a mutation, in float64, over a thousand random inputs.

It is measured on the broken module, because an artifact's rounding would hide small effects.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.mutation.bench import Bench
from benchmarks.mutation.outcome import Effect
from slide_deploy.parity.probes import make_probes

__all__ = ["INPUTS", "LargestEffect", "largest_effect", "random_inputs"]

# The random probes, drawn with 200 seeds other than that of verification.
RANDOM = ("normal", "patchwork", "impulses", "large", "tiny")
SEEDS = range(1, 201)
INPUTS = len(RANDOM) * len(SEEDS)
CHUNK = 100


@dataclass(frozen=True)
class _Sound:
    """Inputs of one kind, with the model's float64 outputs and its float32 noise."""

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
    exact = copy.deepcopy(broken).double()
    found = []
    for sound in _sound(bench):
        change = (_run(exact, sound.inputs) - sound.outputs).nan_to_num(nan=float("inf")).abs()
        by_input = change.flatten(1).amax(1)
        index = int(by_input.argmax())
        image = sound.inputs[index : index + 1].float().numpy()
        found.append(LargestEffect(Effect(float(by_input[index]), sound.noise), {spec.name: image}))
    return max(found, key=lambda one: one.effect.change / one.effect.noise)


@cache
def _sound(bench: Bench) -> tuple[_Sound, ...]:
    exact = copy.deepcopy(bench.model.module).double()
    found = []
    for array in random_inputs(bench).values():
        inputs = torch.from_numpy(array)
        outputs = _run(exact, inputs.double())
        noise = (_run(bench.model.module, inputs).double() - outputs).abs().max()
        found.append(_Sound(inputs.double(), outputs, float(noise)))
    return tuple(found)


def _run(module: nn.Module, inputs: Tensor) -> Tensor:
    with torch.inference_mode():
        return torch.cat([module(chunk) for chunk in inputs.split(CHUNK)])
