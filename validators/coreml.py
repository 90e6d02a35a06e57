"""Core ML packages: Core ML itself on macOS, on other systems the interpreter in `_mil`.

The interpreter needs scipy and protobuf, so the functions that use it import it.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slide_deploy.errors import ArtifactError, NotSupported
from slide_deploy.protocols import Arrays, Runtime, Session
from slide_deploy.types import Fidelity, TensorSpec
from slide_deploy.validators._coreml_classifier import classifier_in
from slide_deploy.validators._quantized.coreml import compressed_weights, take_apart
from slide_deploy.validators._quantized.coreml_activations import (
    float_operations,
    has_activations,
    measure_ranges,
)

if TYPE_CHECKING:
    from slide_deploy.validators import _mil
from slide_deploy.validators._widened.coreml import widen

__all__ = ["RUNTIME"]


def fidelity() -> Fidelity:
    """Native on systems with Core ML."""
    return Fidelity.NATIVE if sys.platform == "darwin" else Fidelity.INTERPRETED


def open_session(path: Path, *, threads: int = 1) -> Session:
    """Read program and weights from disk; both runtimes share specs, operators and limits.

    `threads` is ignored: Core ML decides itself, and BLAS reads environment variables.
    """
    from slide_deploy.validators import _mil

    program = _mil.read_package(path)
    classifier = classifier_in(program)
    values = (*program.arguments, *(v for op in program.operations for v in op.outputs))
    made = {value.name: value.type for value in values}
    computed, stored = _precision(program, weights=False), _precision(program, weights=True)
    compressed, quantized = bool(compressed_weights(program)), has_activations(program)
    kinds, native = _mil.histogram(program), fidelity() is Fidelity.NATIVE
    run = _system(path, program) if native else _interpreted(program)
    return Session(
        inputs=tuple(_spec(feature, None) for feature in program.inputs),
        outputs=tuple(
            classifier.spec
            if classifier and feature.name == classifier.probabilities
            else _spec(feature, made[feature.name].shape)
            for feature in program.outputs
            if not (classifier and feature.name == classifier.best)
        ),
        run=lambda feeds: classifier.arrays(run(feeds)) if classifier else run(feeds),
        operators={f"mil::{kind}": count for kind, count in kinds.items()},
        runtime="Core ML, CPU only" if native else "the MIL interpreter",
        precision=_words(computed, compressed, quantized),
        values=lambda feeds: _values(program, feeds),
        violations=(
            *_mil.violations(program),
            *(f"{state.name} keeps state between runs" for state in program.states),
            *(f"{kind} draws random numbers" for kind in kinds if kind.startswith("random_")),
            *(classifier.violations(program.metadata) if classifier else ()),
        ),
        weight_type="int8" if compressed else stored,
        compute_type="int8" if quantized else computed,
        device="CPU",
        other_precision=float_operations(program)
        if quantized
        else _other_precision(program, computed),
        metadata={**program.metadata, **(classifier.metadata if classifier else {})},
    )


def _words(computed: str, compressed: bool, quantized: bool) -> str:
    weights = f"{computed}, weights stored as int8" if compressed else computed
    return f"{weights}, products read and write int8" if quantized else weights


def _interpreted(program: _mil.Program) -> Callable[[Arrays], dict[str, np.ndarray]]:
    from slide_deploy.validators import _mil

    return lambda feeds: _mil.evaluate(program, _mil.pictures(program, feeds), note=_refuse)


def _refuse(rule: str) -> None:
    raise NotSupported(f"the result depends on behaviour that Apple does not document: {rule}", "")


def _values(program: _mil.Program, feeds: Arrays) -> Iterator[np.ndarray]:
    from slide_deploy.validators import _mil

    kept: list[np.ndarray] = []
    feeds = _mil.pictures(program, feeds)
    _mil.evaluate(program, feeds, observe=lambda _, value: kept.append(value))
    yield from (value for value in kept if value.dtype.kind == "f")


def _precision(program: _mil.Program, *, weights: bool) -> str:
    """What most weights are stored in, or most results rounded to, as the program declares it.

    A cast, or a weight that nothing uses, decides nothing.
    """
    sizes = Counter[str]()
    for op in program.operations:
        if op.is_constant == weights and op.type != "cast":
            for value in op.outputs:
                sizes[value.type.dtype] += _length(value) if weights else 1
    return "float16" if sizes["fp16"] > sizes["fp32"] else "float32"


def _length(value: _mil.Value) -> int:
    return math.prod(size or 1 for size in value.type.shape or ())


def _other_precision(program: _mil.Program, computed: str) -> tuple[str, ...]:
    """Operations with results of the other floating-point type, except casts of outputs."""
    other = "fp32" if computed == "float16" else "fp16"
    outputs = {feature.name for feature in program.outputs}
    return tuple(
        f"mil::{op.type} {op.name}"
        for op in program.operations
        if op.type != "const"
        and any(value.type.dtype == other for value in op.outputs)
        and not (op.type == "cast" and op.name in outputs)
    )


def _spec(feature: _mil.Feature, made: _mil.Shape | None) -> TensorSpec:
    """Name, shape and dtype; a dimension that may vary is called batch."""
    from slide_deploy.validators import _mil

    shape: tuple[int | str, ...]
    if feature.image in _mil.COLOURED:
        _, channels, height, width = (side or 0 for side in feature.shape or (1, 3, 0, 0))
        return TensorSpec(feature.name, (1, height, width, channels), "uint8")
    if feature.ranges:
        shape = tuple(low if low == high else "batch" for low, high in feature.ranges)
    else:
        sizes = feature.shape or made
        if sizes is None:
            raise ArtifactError(f"{feature.name} has no shape", "export it again")
        shape = tuple("batch" if size is None else size for size in sizes)
    return TensorSpec(feature.name, shape, _DTYPES.get(feature.dtype, feature.dtype))


_DTYPES = {"fp32": "float32", "fp16": "float16"}


def _system(path: Path, program: _mil.Program) -> Callable[[Arrays], dict[str, Any]]:
    import coremltools as ct

    from slide_deploy.validators import _mil

    # Only the CPU computes in the program's precision; other units round to float16.
    model = ct.models.MLModel(str(path), compute_units=ct.ComputeUnit.CPU_ONLY)

    def run(feeds: Arrays) -> dict[str, Any]:
        given = _mil.pictures(program, feeds)
        made = model.predict({n: _image(v) if v.dtype == np.uint8 else v for n, v in given.items()})
        return {n: v if isinstance(v, dict) else np.asarray(v) for n, v in made.items()}

    return run


def _image(pixels: np.ndarray) -> object:
    from PIL import Image

    return Image.fromarray(pixels)


RUNTIME = Runtime(
    target="coreml",
    recognises=lambda path: path.suffix == ".mlpackage",
    open=open_session,
    fidelity=fidelity,
    packages=("google.protobuf", "scipy", *(["coremltools"] if sys.platform == "darwin" else [])),
    extra="coreml",
    standard_domains=frozenset({"mil"}),
    take_apart=take_apart,
    ranges=measure_ranges,
    widen=widen,
)
