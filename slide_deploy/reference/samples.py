"""What the unfused PyTorch model says of samples, such as a calibration set."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from torch import nn

from slide_deploy.parity.expectation import Expectation, Noise
from slide_deploy.parity.metrics import noise_floor, noise_rms
from slide_deploy.parity.probes import sample_name
from slide_deploy.reference.run import run_module
from slide_deploy.types import TensorSpec

__all__ = ["sample_expectations"]

Change = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]

WHY = "what the precision costs on the {samples}"


def sample_expectations(
    module: nn.Module,
    outputs: tuple[TensorSpec, ...],
    samples: Iterable[Mapping[str, np.ndarray]],
    *,
    name_of_set: str = "calibration set",
    on_sample: Callable[[str], None] = lambda name: None,
    prepare: Change = lambda inputs: inputs,
    conclude: Change = lambda outputs: outputs,
) -> tuple[Expectation, ...]:
    """Run `module`, in float32, on every set of inputs in float64.

    `prepare` and `conclude` are as in `expectations`. The
    noise is the error of float32 alone: it tells near ties of classes, no more.
    """
    exact = copy.deepcopy(module).double()

    def expected(number: int, inputs: Mapping[str, np.ndarray]) -> Expectation:
        name = sample_name(number)
        on_sample(name)
        given = prepare(inputs)
        references = conclude(run_module(exact, outputs, given))
        single = conclude(run_module(module, outputs, given))
        noise = {
            n: Noise(floor=noise_floor(single[n], value), rms=noise_rms(single[n], value))
            for n, value in references.items()
        }
        return Expectation(name, WHY.format(samples=name_of_set), inputs, references, noise)

    return tuple(expected(number, inputs) for number, inputs in enumerate(samples, 1))
