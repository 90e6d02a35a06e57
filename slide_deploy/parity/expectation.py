"""Expected outputs of a probe, and golden vectors, which store them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slide_deploy.errors import ArtifactError

__all__ = ["Expectation", "Noise", "load_expectations", "save_expectations"]


@dataclass(frozen=True)
class Noise:
    """Rounding noise of the model itself on one output of one probe.

    `floor` is max |y32 − y64| of PyTorch and `rms` its root mean square; `scheme_error` and
    `scheme_snr_db` are the largest error and the signal-to-noise ratio of PyTorch's own rendering
    of the precision scheme, or None for float32.
    """

    floor: float
    rms: float
    scheme_error: float | None = None
    scheme_snr_db: float | None = None


@dataclass(frozen=True)
class Expectation:
    """Inputs of one probe, and the float64 reference and the noise of each output."""

    probe: str
    why: str
    inputs: Mapping[str, np.ndarray]
    references: Mapping[str, np.ndarray]
    noise: Mapping[str, Noise]


def save_expectations(expectations: tuple[Expectation, ...], path: Path) -> None:
    """Write golden vectors as a compressed .npz of plain arrays."""
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
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # numpy types kwargs as allow_pickle


def load_expectations(path: Path) -> tuple[Expectation, ...]:
    """Read a file of `save_expectations`; ArtifactError if the content is not valid."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        count = sum(1 for key in arrays if key.endswith("/about"))
        found = tuple(_one(arrays, index) for index in range(count))
    except Exception as error:  # zip, zlib, struct and numpy errors
        raise ArtifactError(
            f"golden vectors {path} cannot be read ({type(error).__name__})", "export again"
        ) from error
    if not found:
        raise ArtifactError(f"golden vectors {path} are empty", "export again")
    return found


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
        raise ValueError("references and noise have different output names")
    return Expectation(probe, why, named("input"), references, noise)
