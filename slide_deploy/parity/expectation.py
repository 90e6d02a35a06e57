"""Expected outputs of a probe, and golden vectors, which store them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

__all__ = ["Expectation", "Noise", "arrays_of", "expectations_in", "with_operator_errors"]


@dataclass(frozen=True)
class Noise:
    """What rounding alone does to one output of one probe, over several float32 runs of the model.

    `floor` is the largest error of any run, `rms` the root mean square error of all, `systematic`
    that of the part which recurs on perturbed copies of the probe; each against the reference of
    the precision scheme. `scheme_error` and `scheme_snr_db` compare PyTorch's own model at the
    precision with the float64 reference; None where the scheme is float32. `operators` has, by the
    function that a runtime may approximate, the largest and the root mean square effect of an
    absolute error of 1 in it.
    """

    floor: float
    rms: float
    scheme_error: float | None = None
    scheme_snr_db: float | None = None
    systematic: float = 0.0
    operators: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Expectation:
    """Inputs of one probe; per output the float64 reference and the model's own noise.

    `rounded` are the float64 outputs of the model with its weights rounded as the precision scheme
    stores them, where the scheme rounds weights: what an artifact is meant to compute. Of outputs
    named in `logarithms`, all figures are of the natural logarithm (see `parity.logarithms`).
    """

    probe: str
    why: str
    inputs: Mapping[str, np.ndarray]
    references: Mapping[str, np.ndarray]
    noise: Mapping[str, Noise]
    rounded: Mapping[str, np.ndarray] = field(default_factory=dict)
    logarithms: tuple[str, ...] = ()

    @property
    def meant(self) -> Mapping[str, np.ndarray]:
        """What the noise is measured around."""
        return self.rounded or self.references


def with_operator_errors(
    expectations: tuple[Expectation, ...], errors: Mapping[str, float]
) -> tuple[Expectation, ...]:
    """The expectations of a runtime whose operators have these absolute errors, by function."""
    return tuple(
        replace(e, noise={name: _raised(noise, errors) for name, noise in e.noise.items()})
        for e in expectations
    )


def _raised(noise: Noise, errors: Mapping[str, float]) -> Noise:
    effects = [
        (error * largest, error * rms)
        for function, (largest, rms) in noise.operators.items()
        if (error := errors.get(function))
    ]
    squared = sum(rms**2 for _, rms in effects)
    return replace(
        noise,
        floor=noise.floor + sum(largest for largest, _ in effects),
        rms=(noise.rms**2 + squared) ** 0.5,
        systematic=(noise.systematic**2 + squared) ** 0.5,
    )


def arrays_of(expectations: tuple[Expectation, ...]) -> dict[str, np.ndarray]:
    """Plain arrays by name, the number of the probe first (docs/golden-vectors.md)."""
    arrays: dict[str, np.ndarray] = {}
    for index, expected in enumerate(expectations):
        arrays[f"{index}/about"] = np.array([expected.probe, expected.why])
        arrays |= {f"{index}/input/{name}": value for name, value in expected.inputs.items()}
        for name, reference in expected.references.items():
            noise = expected.noise[name]
            figures = (
                *(noise.floor, noise.rms, noise.scheme_error, noise.scheme_snr_db),
                noise.systematic,
            )
            arrays[f"{index}/reference/{name}"] = reference
            arrays[f"{index}/noise/{name}"] = np.array(
                [np.nan if figure is None else figure for figure in figures]
            )
            for function, effects in noise.operators.items():
                arrays[f"{index}/operator/{function}/{name}"] = np.array(effects)
        arrays |= {f"{index}/rounded/{name}": value for name, value in expected.rounded.items()}
        if expected.logarithms:
            arrays[f"{index}/logarithms"] = np.array(expected.logarithms)
    return arrays


def expectations_in(arrays: Mapping[str, np.ndarray]) -> tuple[Expectation, ...]:
    """The expectations that `arrays_of` took apart; KeyError or ValueError for other arrays."""
    count = sum(1 for key in arrays if key.endswith("/about"))
    return tuple(_one(arrays, index) for index in range(count))


def _one(arrays: Mapping[str, np.ndarray], index: int) -> Expectation:
    probe, why = (str(text) for text in arrays[f"{index}/about"])

    def named(kind: str) -> dict[str, np.ndarray]:
        prefix = f"{index}/{kind}/"
        return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}

    operators: dict[str, dict[str, tuple[float, float]]] = {}
    for key, (largest, mean) in named("operator").items():
        function, _, name = key.partition("/")
        operators.setdefault(name, {})[function] = (float(largest), float(mean))
    noise = {}
    for name, figures in named("noise").items():
        floor, rms, error, snr, *systematic = map(float, figures)  # earlier versions wrote four
        own = not np.isnan(error)
        noise[name] = Noise(
            floor=floor,
            rms=rms,
            scheme_error=error if own else None,
            scheme_snr_db=snr if own else None,
            systematic=systematic[0] if systematic else 0.0,
            operators=operators.get(name, {}),
        )
    references = named("reference")
    if not references or references.keys() != noise.keys():
        raise ValueError("references and noise do not name the same outputs")
    logarithms = tuple(map(str, arrays.get(f"{index}/logarithms", ())))
    if not references.keys() >= set(logarithms):
        raise ValueError("logarithms are named of outputs that have no reference")
    rounded = named("rounded")
    return Expectation(probe, why, named("input"), references, noise, rounded, logarithms)
