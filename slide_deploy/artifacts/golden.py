"""Golden vectors: probes, float64 references and noise on disk, and what they were made from.

The file is described in docs/golden-vectors.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from slide_deploy.artifacts.manifest import SourceRecord
from slide_deploy.errors import ArtifactError
from slide_deploy.parity.expectation import Expectation, arrays_of, expectations_in
from slide_deploy.types import Precision, TensorSpec

__all__ = ["GoldenVectors", "load_golden", "save_golden"]


@dataclass(frozen=True)
class GoldenVectors:
    """The expectations at one precision, and the model and checkpoint that they are of.

    `source` is None in files of earlier versions, which do not record it. `inputs` and `outputs`
    are those of an artifact; a size that differs between probes is a free dimension.
    """

    model: str
    source: SourceRecord | None
    precision: str
    expectations: tuple[Expectation, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def save_golden(
    expectations: tuple[Expectation, ...],
    model: str,
    source: SourceRecord,
    precision: str,
    stem: Path,
) -> Path:
    """Write a compressed .npz; its name is that of `stem` and a part of the content's digest."""
    arrays = {
        "model": np.array(model),
        "source": np.array(astuple(source)),
        "precision": np.array(str(precision)),
        **arrays_of(expectations),
    }
    # The format has another memory order too, which simple readers need not know.
    arrays = {key: np.asarray(value, order="C") for key, value in arrays.items()}
    arrays["digest"] = np.array(_digest(arrays))
    path = stem.with_name(f"{stem.name}-{str(arrays['digest'])[:12]}.npz")
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # numpy types kwargs as allow_pickle
    return path


def load_golden(path: Path) -> GoldenVectors:
    """Read what `save_golden` wrote; ArtifactError where the file is another thing, or its content
    is not what its digest says."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        found = _golden(path, arrays)
        changed = found.source is not None and str(arrays["digest"]) != _digest(arrays)
    except Exception as error:  # zip, zlib, struct and numpy errors come as they are
        raise ArtifactError(
            f"golden vectors {path} cannot be read ({type(error).__name__})", "export again"
        ) from error
    if changed:
        raise ArtifactError(
            f"golden vectors {path} have changed since the export (their digest differs)",
            "export again",
        )
    return found


def _golden(path: Path, arrays: Mapping[str, np.ndarray]) -> GoldenVectors:
    expectations = expectations_in(arrays)
    inputs = _specs([expected.inputs for expected in expectations])
    # Artifacts put out float32, whatever the precision.
    outputs = _specs([expected.references for expected in expectations], "float32")
    content = (expectations, inputs, outputs)
    if arrays.keys().isdisjoint(("model", "source", "precision", "digest")):
        rendered = any(n.scheme_error is not None for e in expectations for n in e.noise.values())
        precision = Precision.FLOAT16 if rendered else Precision.FLOAT32
        return GoldenVectors(path.name.partition(".golden-")[0], None, precision, *content)
    source = SourceRecord(*map(str, arrays["source"]))
    return GoldenVectors(str(arrays["model"]), source, str(arrays["precision"]), *content)


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, types, shapes and bytes of all arrays, but for the digest itself."""
    digest = hashlib.sha256()
    for key in sorted(arrays.keys() - {"digest"}):
        value = arrays[key]
        digest.update(f"{key}\0{value.dtype.str}\0{list(value.shape)}\n".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def _specs(probes: list[Mapping[str, np.ndarray]], dtype: str = "") -> tuple[TensorSpec, ...]:
    def one(name: str) -> TensorSpec:
        shapes = zip(*(probe[name].shape for probe in probes), strict=True)
        axes = (sizes[0] if len(set(sizes)) == 1 else f"size{i}" for i, sizes in enumerate(shapes))
        return TensorSpec(name, tuple(axes), dtype or str(probes[0][name].dtype))

    return tuple(map(one, probes[0]))
