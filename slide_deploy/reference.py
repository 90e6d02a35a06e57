"""What the unfused PyTorch model says: float64 references, and its rounding noise."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from slide_deploy.parity.block_trace import BlockReference
from slide_deploy.parity.expectation import Expectation, Noise
from slide_deploy.parity.metrics import max_abs_error, noise_floor, noise_rms, snr_db
from slide_deploy.parity.probes import Probe
from slide_deploy.quantization.catalog import scheme_named
from slide_deploy.types import Precision, TensorSpec

__all__ = ["block_references", "expectations", "run_module", "without_luck"]

Prepare = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]

# Few values may all be rounded luckily, and a lucky floor fails sound artifacts: below this
# many values a probe's noise is not believed to be less than what the other probes show.
FEW_VALUES = 100


def expectations(
    module: nn.Module,
    outputs: tuple[TensorSpec, ...],
    probes: tuple[Probe, ...],
    *,
    precision: str = Precision.FLOAT32,
    on_probe: Callable[[str], None] = lambda name: None,
    prepare: Prepare = lambda inputs: inputs,
) -> tuple[Expectation, ...]:
    """Run `module` on every probe in float64, in float32, and as its precision scheme renders it.

    Raises UnknownName where there is no such scheme. `module` is the training form in
    float32; `outputs` name what it returns, in order. `prepare` computes the module's inputs from
    those of an artifact that contains the preprocessing.
    """
    exact = copy.deepcopy(module).double()
    render = scheme_named(precision).render
    rendered = render(module) if render else None
    found = []
    for probe in probes:
        on_probe(probe.name)
        inputs = prepare(probe.inputs)
        references = run_module(exact, outputs, inputs)
        rounded = run_module(module, outputs, inputs)
        rough = run_module(rendered, outputs, inputs) if rendered else None
        noise = {
            name: _noise(reference, rounded[name], rough[name] if rough else None)
            for name, reference in references.items()
        }
        found.append(Expectation(probe.name, probe.why, probe.inputs, references, noise))
    return without_luck(tuple(found))


def without_luck(found: tuple[Expectation, ...]) -> tuple[Expectation, ...]:
    """Raise noise that is far below the typical one of an output with few values."""

    def steady(name: str, reference: np.ndarray, noise: Noise) -> Noise:
        if reference.size >= FEW_VALUES:
            return noise
        typical = statistics.median(expectation.noise[name].rms for expectation in found)
        # The largest of a few errors is about twice their root mean square.
        return replace(noise, floor=max(noise.floor, 2 * typical), rms=max(noise.rms, typical))

    return tuple(
        replace(e, noise={n: steady(n, e.references[n], noise) for n, noise in e.noise.items()})
        for e in found
    )


def block_references(
    module: nn.Module,
    names: list[str],
    inputs: Mapping[str, np.ndarray],
    precision: str,
) -> tuple[BlockReference, ...]:
    """Outputs of the named modules on one input in float64, with the noise of `precision`."""
    exact = _block_outputs(copy.deepcopy(module).double(), names, inputs)
    render = scheme_named(precision).render
    rough = _block_outputs(render(module) if render else module, names, inputs)
    return tuple(
        BlockReference(name, value, noise_floor(rough[name], value))
        for name, value in exact.items()
    )


def _block_outputs(
    module: nn.Module, names: list[str], inputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Output of each named module in one forward pass, in the order they ran."""
    found: dict[str, np.ndarray] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor):
                found[name] = _array(output).copy()

        return hook

    hooks = [module.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        dtype = next(module.parameters()).dtype
        with torch.inference_mode():
            module(*_tensors(inputs, dtype))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _noise(reference: np.ndarray, rounded: np.ndarray, rough: np.ndarray | None) -> Noise:
    floor, rms = noise_floor(rounded, reference), noise_rms(rounded, reference)
    if rough is None:
        return Noise(floor, rms)
    return Noise(floor, rms, max_abs_error(rough, reference), snr_db(rough, reference))


def _tensors(inputs: Mapping[str, np.ndarray], dtype: torch.dtype) -> Iterator[torch.Tensor]:
    for value in map(torch.from_numpy, inputs.values()):
        yield value.to(dtype) if value.is_floating_point() else value


def run_module(
    module: nn.Module, outputs: tuple[TensorSpec, ...], inputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """One forward pass in the module's own precision; arrays in, arrays out, by name."""
    dtype = next(module.parameters()).dtype
    with torch.inference_mode():
        values: Any = module(*_tensors(inputs, dtype))
    values = (values,) if isinstance(values, torch.Tensor) else values
    return {spec.name: _array(value) for spec, value in zip(outputs, values, strict=True)}


def _array(value: torch.Tensor) -> np.ndarray:
    """The values as they are; numpy has no bfloat16, which float32 holds exactly."""
    return (value.float() if value.dtype is torch.bfloat16 else value).numpy()
