"""Core ML packages: the system's runtime on macOS, elsewhere the interpreter in `_mil`.

The interpreter needs scipy and protobuf, so the functions that use it import it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slide_deploy.errors import ArtifactError, NotSupported
from slide_deploy.protocols import Arrays, Runtime, Session
from slide_deploy.types import Fidelity, TensorSpec

if TYPE_CHECKING:
    from slide_deploy.validators import _mil

__all__ = ["RUNTIME"]


def fidelity() -> Fidelity:
    """Native where the system has a Core ML."""
    return Fidelity.NATIVE if sys.platform == "darwin" else Fidelity.INTERPRETED


def open_session(path: Path, *, threads: int = 1) -> Session:
    """Read program and weights from disk; both runtimes share specs, operators and limits.

    Neither takes a number of threads: the system chooses, and BLAS reads it from its variables.
    """
    from slide_deploy.validators import _mil

    program = _mil.read_package(path)
    values = (*program.arguments, *(v for op in program.operations for v in op.outputs))
    made = {value.name: value.type for value in values}
    computed = _precision(program)
    native = fidelity() is Fidelity.NATIVE
    return Session(
        inputs=tuple(_spec(feature, None) for feature in program.inputs),
        outputs=tuple(_spec(feature, made[feature.name].shape) for feature in program.outputs),
        run=_system(path) if native else lambda feeds: _mil.evaluate(program, feeds, note=_refuse),
        operators={f"mil::{name}": count for name, count in _mil.histogram(program).items()},
        runtime="Core ML, CPU only" if native else "the MIL interpreter",
        precision=computed,
        values=lambda feeds: _values(program, feeds),
        violations=(*_mil.violations(program), *_image_inputs(program)),
        # Operands share one type, so that weights have the type of what is computed with them.
        weight_type=computed,
        compute_type=computed,
        device="CPU",
        other_precision=_other_precision(program, computed),
    )


def _refuse(rule: str) -> None:
    raise NotSupported(f"the result rests on what Apple does not document: {rule}", "")


def _values(program: _mil.Program, feeds: Arrays) -> Iterator[np.ndarray]:
    from slide_deploy.validators import _mil

    kept: list[np.ndarray] = []
    _mil.evaluate(program, feeds, observe=lambda _, value: kept.append(value))
    yield from (value for value in kept if value.dtype.kind == "f")


def _precision(program: _mil.Program) -> str:
    """What results are rounded to, as the program declares it."""
    computed = {
        value.type.dtype for op in program.operations if op.type != "const" for value in op.outputs
    }
    return "float16" if "fp16" in computed else "float32"


def _other_precision(program: _mil.Program, computed: str) -> tuple[str, ...]:
    """Operations with results of the other floating-point type, but for casts of outputs."""
    other = "fp32" if computed == "float16" else "fp16"
    outputs = {feature.name for feature in program.outputs}
    return tuple(
        f"mil::{op.type} {op.name}"
        for op in program.operations
        if op.type != "const"
        and any(value.type.dtype == other for value in op.outputs)
        and not (op.type == "cast" and op.name in outputs)
    )


def _image_inputs(program: _mil.Program) -> Iterator[str]:
    """Inputs that a device would not feed with what the reference takes."""
    for feature in program.inputs:
        if feature.image:
            yield (
                f"input {feature.name} is declared as an image: a device passes pixels 0 to 255, "
                "the reference takes normalised float32"
            )


def _spec(feature: _mil.Feature, made: _mil.Shape | None) -> TensorSpec:
    """Name, shape and dtype; a dimension that may vary is called batch."""
    shape: tuple[int | str, ...]
    if feature.ranges:
        shape = tuple(low if low == high else "batch" for low, high in feature.ranges)
    else:
        sizes = feature.shape or made
        if sizes is None:
            raise ArtifactError(f"{feature.name} has no shape", "export it again")
        shape = tuple("batch" if size is None else size for size in sizes)
    return TensorSpec(feature.name, shape, _DTYPES.get(feature.dtype, feature.dtype))


_DTYPES = {"fp32": "float32", "fp16": "float16"}


def _system(path: Path) -> Callable[[Arrays], dict[str, np.ndarray]]:
    import coremltools as ct

    # The CPU alone computes in the program's own precision; other units round to float16.
    model = ct.models.MLModel(str(path), compute_units=ct.ComputeUnit.CPU_ONLY)

    def run(feeds: Arrays) -> dict[str, np.ndarray]:
        return {name: np.asarray(value) for name, value in model.predict(dict(feeds)).items()}

    return run


RUNTIME = Runtime(
    target="coreml",
    recognises=lambda path: path.suffix == ".mlpackage",
    open=open_session,
    fidelity=fidelity,
    packages=("google.protobuf", "scipy", *(["coremltools"] if sys.platform == "darwin" else [])),
    extra="coreml",
    standard_domains=frozenset({"mil"}),
)
