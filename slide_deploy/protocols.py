"""The interfaces of a target: an exporter and a runtime, as plain records of functions.

The exporter and the runtime of a target never import each other, so that a verdict depends on the
written file alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from slide_deploy.types import Fidelity, Options, Precision, TensorSpec

if TYPE_CHECKING:
    from slide_deploy.capture import Capture

__all__ = ["Arrays", "Exporter", "Open", "Runtime", "Session", "TargetOption"]

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class TargetOption:
    """An option of a target, such as ONNX's `opset`.

    `parse` converts the user's value (text, if it comes from the command line) to the value that
    `write` finds in its options. It is called before any work begins, imports no library, and
    raises UsageError for an invalid value. `default` is shown in help texts.
    """

    name: str
    help: str
    parse: Callable[[object], object]
    default: str = ""


@dataclass(frozen=True)
class Exporter:
    """Writes one kind of artifact; a file in `exporters/` defines it as `EXPORTER`.

    `packages` are import names; `extra` is the extra of the distribution that installs them.
    `options` are those of this target, in addition to the common ones. `precisions` names the
    precisions that it supports, `lacks` the reason for each one that it does not. `write` may
    raise any exception, which becomes a ConversionError.
    """

    target: str
    title: str
    file_name: Callable[[str], str]
    write: Callable[[Capture, Path, Options], None]
    packages: tuple[str, ...]
    extra: str
    aliases: tuple[str, ...] = ()
    precisions: tuple[str, ...] = (Precision.FLOAT32, Precision.FLOAT16)
    lacks: Mapping[str, str] = field(default_factory=dict)
    options: tuple[TargetOption, ...] = ()


@dataclass(frozen=True)
class Session:
    """An artifact that was read from disk, ready to run.

    `operators` counts operators by qualified name, `domain::Operator`. `precision` says in
    words which number types take part; `weight_type` is that of the stored weights,
    `compute_type` that of the arithmetic (each is `precision` where it is empty), `device` what
    computes. `other_precision` names the operations that compute in another floating-point type.
    `metadata` is what the file says of itself; exporters write that of their capture.
    `values` runs once and gives every intermediate floating-point value.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    run: Callable[[Arrays], dict[str, np.ndarray]]
    operators: Mapping[str, int]
    runtime: str
    precision: str
    values: Callable[[Arrays], Iterator[np.ndarray]]
    violations: tuple[str, ...] = ()
    weight_type: str = ""
    compute_type: str = ""
    device: str = ""
    other_precision: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


class Open(Protocol):
    """Opens an artifact for a run with `threads` threads."""

    def __call__(self, path: Path, *, threads: int = 1) -> Session: ...


@dataclass(frozen=True)
class Runtime:
    """Reads artifacts of one kind; a file in `validators/` defines it as `RUNTIME`.

    `recognises` tells from the path alone. `standard_domains` are the operator domains
    that the vendor's runtime implements itself: anything else is a custom kernel.
    `open_second` opens the artifact in an independent implementation, `second_opinion`.
    `operator_errors` are absolute errors of functions that the runtime approximates, such as `erf`
    (see reference.rounding), measured on the function alone.
    `loses_nan` are the operators that may answer NaN with a number; None where the runtime promises
    nothing of NaN, which is then not judged.
    """

    target: str
    recognises: Callable[[Path], bool]
    open: Open
    fidelity: Callable[[], Fidelity]
    packages: tuple[str, ...]
    extra: str
    standard_domains: frozenset[str]
    second_opinion: str = ""
    open_second: Callable[[Path], Session] | None = None
    operator_errors: Mapping[str, float] = field(default_factory=dict)
    loses_nan: frozenset[str] | None = None
