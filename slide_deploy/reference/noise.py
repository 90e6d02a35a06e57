"""What rounding does to a model's outputs, from several runs that round differently."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from slide_deploy.parity.expectation import Expectation, Noise
from slide_deploy.parity.metrics import (
    max_abs_error,
    noise_floor,
    noise_rms,
    rms_error,
    rounded_snr_db,
    snr_db,
)
from slide_deploy.parity.probes import Probe, source
from slide_deploy.parity.systematic import recurring_power
from slide_deploy.quantization.scheme import Scheme
from slide_deploy.reference.rounding import OPERATOR_STEP

__all__ = [
    "FEW_VALUES",
    "Outputs",
    "Runs",
    "expectation_of",
    "with_noise_of",
    "with_systematic_noise",
    "without_luck",
]

Outputs = Mapping[str, np.ndarray]

# Few values may all be rounded luckily, and a lucky floor fails sound artifacts: below this
# many values a probe's noise is not believed to be less than what the other probes show.
FEW_VALUES = 100


@dataclass(frozen=True)
class Runs:
    """Outputs on one probe: in float64, as the precision scheme means them, of each run that
    rounds, of models with weights rounded once more, and with an approximated function, by its
    name (of the first run that rounds, with errors of OPERATOR_STEP)."""

    references: Outputs
    meant: Outputs
    noisy: Sequence[Outputs]
    folded: Sequence[Outputs]
    approximated: Mapping[str, Outputs]


def expectation_of(probe: Probe, runs: Runs, scheme: Scheme) -> Expectation:
    """References and noise of one probe; the systematic noise is still missing."""
    noise = {}
    for name, meant in runs.meant.items():
        made = [run[name] for run in runs.noisy]
        noise[name] = Noise(
            floor=max(noise_floor(value, meant, scheme.epsilon) for value in made),
            rms=_rms([noise_rms(value, meant, scheme.epsilon) for value in made]),
            operators={
                function: (
                    max_abs_error(run[name], made[0].astype(np.float64)) / OPERATOR_STEP,
                    rms_error(run[name], made[0].astype(np.float64)) / OPERATOR_STEP,
                )
                for function, run in runs.approximated.items()
            },
        )
        if scheme.render:
            reference = runs.references[name]
            noise[name] = replace(
                noise[name],
                scheme_error=max(max_abs_error(value, reference) for value in made),
                scheme_snr_db=min(
                    *(snr_db(value, reference) for value in made),
                    rounded_snr_db(reference, scheme.epsilon),
                ),
            )
    rounded = runs.meant if runs.meant is not runs.references else {}
    return Expectation(probe.name, probe.why, probe.inputs, runs.references, noise, rounded)


def with_noise_of(copied: Expectation, original: Expectation) -> Expectation:
    """The expectation of a perturbed copy, with noise at least that of the probe it was made from,
    and with the effect of that probe's approximated functions."""
    noise = {
        name: replace(
            own,
            floor=max(own.floor, original.noise[name].floor),
            rms=max(own.rms, original.noise[name].rms),
            operators=original.noise[name].operators,
        )
        for name, own in copied.noise.items()
    }
    return replace(copied, noise=noise)


def _rms(values: Sequence[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def with_systematic_noise(
    expected: Sequence[Expectation],
    runs: Mapping[str, Runs],
    sources: Mapping[str, Sequence[str]],
) -> tuple[Expectation, ...]:
    """The expectations with the part of the noise that recurs on perturbed copies (`sources` names
    them by the probe that they are copies of), and without noise that is low by luck."""
    recurring = {
        own: {name: _systematic(name, [runs[p] for p in probes]) for name in runs[own].meant}
        for own, probes in sources.items()
    }

    def completed(expectation: Expectation) -> Expectation:
        own = recurring.get(source(expectation.probe), {})
        noise = {n: replace(v, systematic=own.get(n, 0.0)) for n, v in expectation.noise.items()}
        return replace(expectation, noise=noise)

    return without_luck(tuple(map(completed, expected)))


def _systematic(name: str, copies: Sequence[Runs]) -> float:
    """Root mean square of the run that shows most of it, and of models with rounded weights."""
    first = copies[0]
    power = max(
        recurring_power([run.noisy[number][name] - run.meant[name] for run in copies])
        for number in range(min(len(run.noisy) for run in copies))
    )
    folded = [rms_error(run[name], first.meant[name]) ** 2 for run in first.folded]
    return float(np.sqrt(max(power, 0.0) + sum(folded) / max(len(folded), 1)))


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
