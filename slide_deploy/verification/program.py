"""Whether an artifact of a reduced precision is the program that was meant.

The artifact is taken apart. Of a quantized one, each integer, scale, zero point and range must
follow from the float artifact and the calibration set; of a float16 one, each constant must be the
float32 artifact's, rounded. With the float artifact's constants and arithmetic in their place, it
must pass the gates of that artifact's precision.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slide_deploy import registry
from slide_deploy.errors import ArtifactError, DifferentProgram
from slide_deploy.parity.expectation import Expectation
from slide_deploy.parity.gates import MEANING, GateKind, GateResult
from slide_deploy.parity.quantization import is_folded, quantization_problem, rounding_problem
from slide_deploy.protocols import QuantizedTensor
from slide_deploy.quantization.catalog import scheme_named
from slide_deploy.quantization.program import has_program, program_precision
from slide_deploy.quantization.scheme import Scheme, same_width
from slide_deploy.verification.record import Check
from slide_deploy.verification.runner import take_apart, widen

__all__ = ["with_program"]


@dataclass(frozen=True)
class _Apart:
    """What is wrong with the tensors of an artifact; `restored` says what the artifact is once
    they are the float artifact's."""

    kind: GateKind
    wrong: tuple[str, ...]
    total: int
    basis: str
    restored: str


NOT_JUDGED = {
    True: "whether each integer, scale and range is the one that was meant was not judged: "
    "verify --against model.pth --calibration tells",
    False: "whether each weight is the one that was meant, rounded to float16, was not judged: "
    "verify --against model.pth tells",
}


def with_program(
    check: Check,
    path: Path,
    program: Callable[[str], Path] | None,
    expected: Sequence[Expectation],
    check_float: Callable[[Path], Check],
) -> Check:
    """The check of an artifact of a reduced precision, with what is wrong with its program.

    `program` gives the artifact of the same model at a precision, `expected` has the inputs of each
    run on the calibration set of a quantized one, `check_float` judges a float artifact.
    """
    target, scheme = registry.recognise(path).target, scheme_named(check.precision)
    if not has_program(scheme, registry.runtime(target)):
        return check
    if program is None:
        return replace(check, notes=(*check.notes, NOT_JUDGED[scheme.quantized]))
    with tempfile.TemporaryDirectory(prefix="slide-deploy-") as folder:
        restored = Path(folder, path.name)
        try:
            if scheme.quantized:
                apart = _quantized(target, path, program, restored, expected, scheme)
            else:
                apart = _rounded(target, path, program, restored, scheme)
            floats = check_float(restored)
        except DifferentProgram as error:
            # Of another tool, or exported with other options: its own gates remain.
            note = f"{NOT_JUDGED[False].partition(':')[0]}: {error.message}"
            return replace(check, notes=(*check.notes, note))
        except ArtifactError as error:
            problems = (*check.problems, str(error))
            return replace(check, problems=problems, details=check.details or error.details)
    result = GateResult(
        *(apart.kind, 0.0, float(len(apart.wrong)), f"of {apart.total} tensors", apart.basis),
        passed=not apart.wrong,
    )
    problems = (
        *check.problems,
        *apart.wrong,
        *(f"{apart.restored}: {problem}" for problem in floats.problems),
    )
    return replace(
        check,
        problems=problems,
        gate=f"{check.gate}; {MEANING[apart.kind]}: none; {apart.restored}, {floats.gate}",
        gates=(*check.gates, result, *floats.gates),
        first_bad_block=check.first_bad_block or floats.first_bad_block,
    )


def _quantized(
    target: str,
    path: Path,
    program: Callable[[str], Path],
    restored: Path,
    expected: Sequence[Expectation],
    scheme: Scheme,
) -> _Apart:
    runs = [dict(expectation.inputs) for expectation in expected]
    made_from = program(program_precision(scheme, registry.exporter(target)))
    tensors = take_apart(target, path, made_from, restored, runs)
    return _Apart(
        kind=GateKind.QUANTIZATION,
        wrong=tuple(problem for tensor in tensors if (problem := _problem(tensor, scheme))),
        total=len(tensors),
        basis="program: the float artifact, and its ranges on the calibration set",
        restored="without quantization",
    )


def _problem(tensor: QuantizedTensor, scheme: Scheme) -> str:
    wanted = scheme.activations if tensor.weights is None else scheme.weights
    # A constant that is added has the type of what it is added to, where this is not narrower.
    fits = same_width(tensor.kind, wanted) or (
        tensor.weights is not None and same_width(tensor.kind, scheme.activations)
    )
    if not fits and tensor.product is None and tensor.palette is None:
        return f"{tensor.name} is {tensor.kind}, not {wanted}"
    return quantization_problem(tensor)


def _rounded(
    target: str, path: Path, program: Callable[[str], Path], restored: Path, scheme: Scheme
) -> _Apart:
    single = program(program_precision(scheme, registry.exporter(target)))
    tensors = widen(target, path, single, restored)
    wrong = [(n, problem) for n, t in enumerate(tensors) if (problem := rounding_problem(t))]
    if wrong:
        aside = restored.with_name(f"again-{restored.name}")
        again = widen(target, program(scheme.name), single, aside)
        wrong = [(n, problem) for n, problem in wrong if not is_folded(tensors[n], again[n])]
    return _Apart(
        kind=GateKind.ROUNDING,
        wrong=tuple(problem for _, problem in wrong),
        total=len(tensors),
        basis="program: the float32 artifact",
        restored="in float32",
    )
