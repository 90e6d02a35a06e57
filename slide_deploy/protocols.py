"""The interfaces of a target: an exporter and a runtime, as plain records of functions.

The exporter and the runtime of a target never import each other, so that a verdict depends on the
written file alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from slide_deploy.types import Fidelity, Options, Precision, ProductKind, TensorSpec
from slide_deploy.utils.records import Figure

if TYPE_CHECKING:
    from slide_deploy.capture import Capture

__all__ = [
    "Arrays",
    "Calibration",
    "Estimate",
    "Example",
    "Exporter",
    "Open",
    "Piece",
    "Product",
    "QuantizedTensor",
    "Ranges",
    "RoundedTensor",
    "Runtime",
    "Session",
    "TakeApart",
    "TargetOption",
    "Widen",
]

Arrays = Mapping[str, np.ndarray]

# The smallest and the largest value of each floating-point tensor, by name.
Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class TargetOption:
    """An option of a target, such as ONNX's `opset`.

    `parse` converts the user's value (text, if it comes from the command line) to the value that
    `write` finds in its options. It is called before any work begins, imports no library, and
    raises UsageError for an invalid value. `default` is shown in help texts. `alternatives` are
    values that the search for accuracy tries in its place. `names_device` says that lowerings are
    tuned for each of its values.
    """

    name: str
    help: str
    parse: Callable[[object], object]
    default: str = ""
    alternatives: tuple[str, ...] = ()
    names_device: bool = False


@dataclass(frozen=True)
class Calibration:
    """What a quantizer takes beside the float artifact: the inputs of each run of it on the
    calibration set, the metadata of the new artifact, and the products, by name, that stay in
    float. `ranges` measures the tensors of the float artifact on these runs, in its own runtime,
    where a vendor's tool cannot; None where the runtime offers no names of tensors."""

    runs: Sequence[Arrays]
    metadata: Mapping[str, str]
    kept: frozenset[str] = frozenset()
    ranges: Callable[[], Ranges] | None = None


@dataclass(frozen=True)
class QuantizedTensor:
    """A tensor that an artifact has as integers: real = scale × (integer − zero_point).

    `scale` and `zero_point` have one value, or one for each index along `axis`. `low` and `high`
    are the smallest and the largest integer of its type, `kind`. Weights have `integers` and the
    `weights` of the float32 artifact that they stand for; a bias whose scale must be the `product`
    of those of its operator's input and weights has this too. Activations have the smallest and
    the largest value, `observed` in the float32 artifact on the calibration set.
    """

    name: str
    kind: str
    low: int
    high: int
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int = 0
    integers: np.ndarray | None = None
    weights: np.ndarray | None = None
    product: np.ndarray | None = None
    observed: tuple[float, float] | None = None
    palette: np.ndarray | None = None


@dataclass(frozen=True)
class RoundedTensor:
    """A constant of a float16 artifact, `stored`, and the one in its place in the float32 artifact,
    `weights`."""

    name: str
    stored: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class Example:
    """How an application runs an artifact, for the page that comes with it.

    `code` is a `string.Template` with `$path`, `$input` and `$output` (names, as quoted strings),
    `$shape` (of the input) and, for pictures, `$height` and `$width`; it sets `result` to the first
    output. In Python it takes a dictionary `inputs` of arrays, and `$results` takes all outputs in
    their order; `imports` are its imports, and `labels` is an expression for the labels in the
    artifact, which may use json. In another language it is the whole example. `takes` says whether
    it is for pictures, for other tensors, or for both;
    `classifies` whether it is for artifacts that give probabilities, for others, or, None, for
    both.
    """

    language: str
    code: str
    imports: tuple[str, ...] = ()
    labels: str = ""
    takes: Literal["picture", "tensor", "both"] = "both"
    classifies: bool | None = None


@dataclass(frozen=True)
class Product:
    """A product in a float artifact: the path of its module, or of a tensor in it (empty where
    neither is known), and its kind."""

    path: str
    kind: ProductKind


@dataclass(frozen=True)
class Exporter:
    """Writes one kind of artifact; a file in `exporters/` defines it as `EXPORTER`.

    `packages` are import names; `extra` is the extra of the distribution that installs them.
    `options` are those of this target, in addition to the common ones. `precisions` names the
    precisions that it supports, `lacks` the reason for each one that it does not. `write` may
    raise any exception, which becomes a ConversionError. `quantize` writes the artifact of a
    quantized precision from the one that `write` wrote at the precision `quantized_from`; it may
    raise any too. `products` gives the products of a float artifact that `quantize` quantizes, by
    name; without it `quantize` cannot keep any in float. Files that `quantize` leaves beside the
    float artifact are there the next time.
    `unsupported` says why `packages` cannot be installed on this machine; it is empty if they can.
    `own_environment` says that they conflict with those of other targets.
    `picture` and `probabilities` say what these are for the artifact, where they are no arrays;
    `examples` show how to run it.
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
    quantize: Callable[[Path, Path, Calibration, Options], None] | None = None
    quantized_from: str = Precision.FLOAT32
    products: Callable[[Path], Mapping[str, Product]] | None = None
    unsupported: Callable[[], str] = lambda: ""
    own_environment: bool = False
    picture: str = ""
    probabilities: str = ""
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Estimate:
    """What a compiler, `tool`, estimates for one device; nothing of it was measured.

    `cycles` take `milliseconds` at the clock. `sram_bytes` and `other_bytes` (flash, DRAM) are
    memory, `mac_utilisation` is the share in percent of the multiply-adds that the cycles could do.
    `on_npu` counts operators on the NPU, `on_cpu` names those on the CPU, each with its block.
    """

    device: str
    tool: str
    clock_mhz: Figure
    cycles: int
    milliseconds: Figure
    sram_bytes: int
    other_bytes: int
    mac_utilisation: Figure
    on_npu: int
    on_cpu: tuple[str, ...] = ()


@dataclass(frozen=True)
class Session:
    """An artifact that was read from disk, ready to run.

    `operators` counts operators by qualified name, `domain::Operator`. `precision` says in
    words which number types take part; `weight_type` is that of the stored weights,
    `compute_type` that of the arithmetic (each is `precision` where it is empty), `device` what
    computes. `other_precision` names the operations that compute in another floating-point type.
    `metadata` is what the file says of itself; exporters write that of their capture. `estimates`
    are those of a compiler for the devices of the artifact.
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
    estimates: tuple[Estimate, ...] = ()


class Open(Protocol):
    """Opens an artifact for a run with `threads` threads."""

    def __call__(self, path: Path, *, threads: int = 1) -> Session: ...


@dataclass(frozen=True)
class Piece:
    """A piece of an artifact that computes something else than that of a clean one.

    `operators` are its operators, of `total` in the artifact; `differing` pieces compute something
    else. Each run has the `inputs` of the piece, what the clean one makes of them, `outputs`, and
    what it makes of them in another order of summation, `rounded`.
    """

    operators: tuple[str, ...]
    total: int
    differing: int
    inputs: Sequence[Arrays]
    outputs: Sequence[Arrays]
    rounded: Sequence[Arrays]


Reduce = Callable[[Path, Path, Path, Sequence[Arrays]], Piece]
TakeApart = Callable[[Path, Path, Path, Iterable[Arrays]], Iterable[QuantizedTensor]]
MeasureRanges = Callable[[Path, Iterable[Arrays]], Ranges]
Widen = Callable[[Path, Path, Path], Iterable[RoundedTensor]]


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
    `take_apart` gives the quantized tensors of an artifact, given the float32 artifact that it was
    made from and runs of it on the calibration set, and writes to the third path the artifact
    without quantization and with the weights of the float32 artifact.
    `ranges` measures the tensors of a float artifact over several runs.
    `widen` gives the constants of a float16 artifact beside those of the float32 artifact of the
    same model, and writes to the third path the float16 artifact with the latter's constants and
    float32 arithmetic; DifferentProgram where the two have other operations.
    `estimates` says that its sessions have a compiler's estimates.
    `compiled_problems` compiles again what a compiler made from other files of the artifact, and
    says what differs.
    `reduce` finds the smallest piece of an artifact that differs from the same piece of a clean
    one on these runs, and writes it to the third path.
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
    take_apart: TakeApart | None = None
    ranges: MeasureRanges | None = None
    widen: Widen | None = None
    estimates: bool = False
    compiled_problems: Callable[[Path], Iterable[str]] | None = None
    reduce: Reduce | None = None
