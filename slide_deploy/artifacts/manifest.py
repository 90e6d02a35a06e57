"""`manifest.json`: the source and the artifacts of an export, with hashes."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

from slide_deploy import registry
from slide_deploy.packaging.classifier import Conclusion
from slide_deploy.packaging.next_step import NextStep
from slide_deploy.packaging.preprocessing import Preprocessing
from slide_deploy.quantization.search import Search
from slide_deploy.types import LayerLowering, Loading, TensorSpec
from slide_deploy.utils.records import (
    Count,
    Figure,
    OptionalSha256,
    Sha256,
    read_json,
    write_json,
)

__all__ = [
    "FILE_NAME",
    "Artifact",
    "Manifest",
    "Recipe",
    "SourceRecord",
    "find_manifest",
    "toolchain",
]

FILE_NAME = "manifest.json"
SCHEMA_VERSION: Final = 1

_RECORDS = (registry.exporter, registry.runtime)


@dataclass(frozen=True)
class SourceRecord:
    """The checkpoint: file name, SHA-256 (empty if unknown), and which of its weights."""

    path_name: str
    sha256: OptionalSha256
    weights: str

    def __str__(self) -> str:
        return f"{self.path_name} ({self.weights} weights, sha256 {self.sha256[:12]}…)"

    def same_weights(self, other: SourceRecord) -> bool:
        """Whether both are the same weights of the same file, whatever its name."""
        return (self.sha256, self.weights) == (other.sha256, other.weights)


@dataclass(frozen=True)
class Recipe:
    """The settings that an artifact was made with, beside those that its record has. `options` are
    those of its target, as they were given."""

    loading: Loading
    batch: int
    dynamic: bool
    dynamic_size: bool
    lowering: str
    min_snr: Figure | None
    options: Mapping[str, str]
    smooth: Figure | None = None
    max_drop: Figure | None = None
    data: str = ""


@dataclass(frozen=True)
class Artifact:
    """One exported file or folder. `path` and `golden`, the golden vectors, are relative to the
    manifest's folder."""

    target: str
    path: str
    precision: str
    sha256: Sha256
    """Of the file; of a folder, over the names and hashes of its files."""
    size_bytes: Count
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    lowering: tuple[LayerLowering, ...] = ()
    calibration: str = ""
    """Name of the calibration set; empty where the precision needs none."""
    calibration_sha256: OptionalSha256 = ""
    """Of the set's samples, as the model takes them."""
    search: Search | None = None
    """Which parts stay in float, where they were searched for."""
    preprocessing: Preprocessing | None = None
    """That of the pictures that the artifact takes; it resizes and crops outside of it."""
    labels: tuple[str, ...] = ()
    """Names of the classes, in the order of the output."""
    conclusion: Conclusion = Conclusion.SCORES
    """Whether it gives scores of the classes, as the model does, or probabilities."""
    golden: str = ""
    golden_sha256: OptionalSha256 = ""
    next_step: NextStep | None = None
    """How a vendor's tools compile it, where that cannot be done here."""
    recipe: Recipe | None = None
    """None for a module that was in memory, and in manifests of earlier versions."""


@dataclass(frozen=True)
class Manifest:
    """The content of an output folder."""

    source: SourceRecord
    model: Mapping[str, Any]
    """Name, family and configuration of the model, and whether its outputs are feature maps."""
    artifacts: tuple[Artifact, ...]
    toolchain: Mapping[str, str]
    """Versions of the packages that wrote the artifacts."""
    schema_version: Literal[1] = SCHEMA_VERSION

    def entry(self, artifact: Path) -> Artifact | None:
        """The record of an artifact of this folder, by name."""
        return next((a for a in self.artifacts if a.path == artifact.name), None)

    def save(self, folder: Path) -> None:
        write_json(self, folder / FILE_NAME)


def find_manifest(folder: Path) -> Manifest | None:
    """The folder's manifest, or None if there is none; ArtifactError if it cannot be read."""
    path = folder / FILE_NAME
    return read_json(Manifest, path, SCHEMA_VERSION) if path.exists() else None


def toolchain() -> dict[str, str]:
    """Versions of this package, numpy and the installed libraries of all targets."""
    records = [find(name) for name in registry.target_names() for find in _RECORDS]
    needed = {package: None for record in records for package in record.packages}
    found = {"python": platform.python_version(), "platform": platform.platform(terse=True)}
    for package in ("slide-deploy", "numpy", *needed):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
