"""Writes a Swift package around an exported Core ML classifier, with its golden vectors as test."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from slide_deploy.artifacts.golden import GoldenVectors, load_golden
from slide_deploy.artifacts.manifest import FILE_NAME, Artifact, find_manifest
from slide_deploy.errors import ArtifactError, UsageError
from slide_deploy.packaging.classifier import PROBABILITIES, Conclusion
from slide_deploy.packaging.preprocessing import Preprocessing
from slide_deploy.parity.expectation import Expectation
from slide_deploy.parity.gates import GateKind
from slide_deploy.parity.logarithms import SMALLEST
from slide_deploy.parity.probes import source
from slide_deploy.quantization.catalog import scheme_named
from slide_deploy.utils.hashing import sha256_of
from slide_deploy.utils.staging import staged
from slide_deploy.validators._mil import SYSTEMS, first_opset, read_package

__all__ = ["swift_package"]

TEMPLATES = Path(__file__).parent / "swift"
TESTS, SOURCES = Path("Tests", "SlideModelTests"), Path("Sources", "SlideModel")

# The first systems with the asynchronous MLModel.compileModel.
OLDEST = {"iOS": 16, "macOS": 13}

ADVICE = "export it with -t coreml --preprocess … --classifier, in float32 or float16"


@dataclass(frozen=True)
class _Exported:
    """A package on disk, its record in the manifest, and its golden vectors."""

    path: Path
    record: Artifact
    way: Preprocessing
    golden: GoldenVectors


def swift_package(package: Path, output: Path) -> Path:
    """Write the folder `output`: a Swift package with `package` as a resource, a class that
    classifies a CGImage with it, and a test that repeats its golden vectors.

    `package` lies in the folder of its export. Raises UsageError for another artifact than a
    classifier of pictures in float32 or float16, and ArtifactError if it, or its golden vectors,
    changed since.
    """
    exported = _exported(package)
    if output.exists():
        raise UsageError(f"{output} exists", "remove it, or give another --output")
    with staged(output) as scratch:
        sources, tests = scratch / SOURCES, scratch / TESTS
        sources.mkdir(parents=True)
        tests.mkdir(parents=True)
        shutil.copytree(package, sources / package.name)
        names = _names(exported)
        for file, folder in (
            ("Package.swift", scratch),
            ("SlideModel.swift", sources),
            ("GoldenTests.swift", tests),
        ):
            text = (TEMPLATES / file).read_text("utf-8")
            code = text if folder is tests else Template(text).substitute(names)
            (folder / file).write_text(code, "utf-8")
        content = json.dumps(_golden(exported), ensure_ascii=False)
        (tests / "golden.json").write_text(content, "utf-8")
    return output


def _exported(package: Path) -> _Exported:
    manifest = find_manifest(package.parent)
    record = manifest.entry(package) if manifest else None
    if record is None:
        raise UsageError(
            f"{package} has no record in a {FILE_NAME} beside it",
            "give the package in the folder that export wrote",
        )
    picture = record.inputs[0].is_picture and record.preprocessing is not None
    if not picture or record.target != "coreml" or record.conclusion is Conclusion.SCORES:
        raise UsageError(f"{package.name} is not a Core ML classifier of pictures", ADVICE)
    if _limit(record.precision) is None:
        raise UsageError(f"{package.name} is {record.precision}", ADVICE)
    golden = package.parent / record.golden
    for path, digest in ((package, record.sha256), (golden, record.golden_sha256)):
        if not path.exists() or sha256_of(path) != digest:
            raise ArtifactError(
                f"{path.name} is not the one that was exported (SHA-256 differs)", "export again"
            )
    assert record.preprocessing is not None
    return _Exported(package, record, record.preprocessing, load_golden(golden))


def _limit(precision: str) -> float | None:
    """The error that the verdict allows, in multiples of the noise."""
    gates = scheme_named(precision).gates
    return next((gate.limit for gate in gates if gate.kind is GateKind.MAX_ERROR), None)


def _names(exported: _Exported) -> Mapping[str, object]:
    program = read_package(exported.path)
    best, probabilities = program.predicted
    spec = exported.record.inputs[0]
    return {
        "file": _quoted(exported.path.name),
        "stem": _quoted(exported.path.stem),
        "ios": f"{_system(program, 'iOS')}.0",
        "macos": f"{_system(program, 'macOS')}.0",
        "height": spec.shape[1],
        "width": spec.shape[2],
        "input": _quoted(spec.name),
        "best": _quoted(best),
        "probabilities": _quoted(probabilities),
        "scaled": _scaled(exported.way),
    }


def _system(program: Any, name: str) -> int:
    """The version of the oldest system that runs the package and this code."""
    (own,) = (system for system in SYSTEMS[first_opset(program)] if system.startswith(name))
    return max(int(own.removeprefix(name)), OLDEST[name])


def _quoted(text: str) -> str:
    """The inside of a string in Swift, in which a backslash could start an interpolation."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _scaled(way: Preprocessing) -> str:
    """The size of a picture before the crop, as `packaging.preprocessing.fit` computes it."""
    if way.resize is None:
        return "(width, height)"
    if isinstance(way.resize, tuple):
        return f"({way.resize[1]}, {way.resize[0]})"
    rule = ".down" if way.rounding == "down" else ".toNearestOrEven"
    sides = (
        f"Int((Double({way.resize} * {side}) / Double(min(width, height))).rounded({rule}))"
        for side in ("width", "height")
    )
    return "(\n            {},\n            {})".format(*sides)


def _golden(exported: _Exported) -> dict[str, Any]:
    probes = [e for e in exported.golden.expectations if source(e.probe) == e.probe]
    limit = _limit(exported.record.precision)
    assert limit is not None
    labels = exported.record.labels
    return {
        "classes": labels,
        "smallest": SMALLEST,
        "probes": [entry for e in probes for entry in _entries(e, labels, limit)],
    }


def _entries(
    expected: Expectation, labels: tuple[str, ...], limit: float
) -> Iterator[dict[str, Any]]:
    ((pixels,),) = expected.inputs.values()
    (meant,) = expected.meant[PROBABILITIES]
    allowed = limit * expected.noise[PROBABILITIES].floor
    second, first = np.sort(meant)[-2:]
    yield {
        "name": expected.probe,
        "pixels": base64.b64encode(pixels.tobytes()).decode(),
        "logarithms": meant.tolist(),
        "limit": allowed,
        "best": labels[int(meant.argmax())] if first - second > 2 * allowed else None,
    }
