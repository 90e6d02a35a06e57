"""What one probe must give, and how it is kept on disk for machines without the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Expectation", "Noise", "arrays_of", "expectations_in"]


@dataclass(frozen=True)
class Noise:
    """Rounding noise of the model itself on one output of one probe.

    `floor` is max |y32 − y64| of PyTorch and `rms` its root mean square; `scheme_error` and
    `scheme_snr_db` are the largest error and the signal-to-noise ratio of PyTorch's own rendering
    of the precision scheme, None where the scheme is float32.
    """

    floor: float
    rms: float
    scheme_error: float | None = None
    scheme_snr_db: float | None = None


@dataclass(frozen=True)
class Expectation:
    """Inputs of one probe; per output the float64 reference and the model's own noise."""

    probe: str
    why: str
    inputs: Mapping[str, np.ndarray]
    references: Mapping[str, np.ndarray]
    noise: Mapping[str, Noise]


def arrays_of(expectations: tuple[Expectation, ...]) -> dict[str, np.ndarray]:
    """Plain arrays by name, the number of the probe first (docs/golden-vectors.md)."""
    arrays: dict[str, np.ndarray] = {}
    for index, expected in enumerate(expectations):
        arrays[f"{index}/about"] = np.array([expected.probe, expected.why])
        arrays |= {f"{index}/input/{name}": value for name, value in expected.inputs.items()}
        for name, reference in expected.references.items():
            noise = expected.noise[name]
            figures = (noise.floor, noise.rms, noise.scheme_error, noise.scheme_snr_db)
            arrays[f"{index}/reference/{name}"] = reference
            arrays[f"{index}/noise/{name}"] = np.array(
                [np.nan if figure is None else figure for figure in figures]
            )
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

    noise = {}
    for name, figures in named("noise").items():
        floor, rms, error, snr = map(float, figures)
        rendered = (None, None) if np.isnan(error) else (error, snr)
        noise[name] = Noise(floor, rms, *rendered)
    references = named("reference")
    if not references or references.keys() != noise.keys():
        raise ValueError("references and noise do not name the same outputs")
    return Expectation(probe, why, named("input"), references, noise)
