"""How much a mutation changes at all, in float64, over a thousand random inputs.

Measured on the broken module, the exact twin of the broken artifact: an artifact's own
rounding would hide what is asked.
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

__all__ = ["INPUTS", "Widest", "random_inputs", "widest"]

# The random probes at other seeds than the one that verification uses: 200 draws of each.
RANDOM = ("normal", "patchwork", "impulses", "large", "tiny")
SEEDS = range(1, 201)
INPUTS = len(RANDOM) * len(SEEDS)
CHUNK = 100


@dataclass(frozen=True)
class _Sound:
    """Inputs of one kind, what the model makes of them, and its float32 noise on them."""

    inputs: Tensor
    outputs: Tensor
    noise: float


def random_inputs(bench: Bench) -> Mapping[str, np.ndarray]:
    """The thousand inputs, by the kind of probe they are draws of."""
    (spec,) = bench.model.inputs
    draws: dict[str, list[np.ndarray]] = {name: [] for name in RANDOM}
    for seed in SEEDS:
        for probe in make_probes((spec,), seed):
            if probe.name in draws:
                draws[probe.name].append(probe.inputs[spec.name])
    return {name: np.concatenate(arrays) for name, arrays in draws.items()}


@dataclass(frozen=True)
class Widest:
    """The largest effect of a mutation, and the one input that shows it."""

    effect: Effect
    inputs: Mapping[str, np.ndarray]


def widest(bench: Bench, broken: nn.Module) -> Widest:
    """The change relative to the noise, for the kind of input where that is largest."""
    (spec,) = bench.model.inputs
    exact = copy.deepcopy(broken).double()
    found = []
    for sound in _sound(bench):
        change = (_run(exact, sound.inputs) - sound.outputs).nan_to_num(nan=float("inf")).abs()
        by_input = change.flatten(1).amax(1)
        index = int(by_input.argmax())
        image = sound.inputs[index : index + 1].float().numpy()
        found.append(Widest(Effect(float(by_input[index]), sound.noise), {spec.name: image}))
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
