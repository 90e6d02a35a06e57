"""Whether a quantized artifact is the program that was meant.

The artifact is taken apart: each integer, scale, zero point and range must follow from the float
artifact and the calibration set. Without quantization and with the float artifact's weights, it
must pass the gates of its precision.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from slide_deploy import registry
from slide_deploy.errors import ArtifactError
from slide_deploy.parity.expectation import Expectation
from slide_deploy.parity.gates import MEANING, GateKind, GateResult
from slide_deploy.parity.quantization import quantization_problem
from slide_deploy.protocols import QuantizedTensor
from slide_deploy.quantization.catalog import scheme_named
from slide_deploy.quantization.scheme import Scheme
from slide_deploy.verification.record import Check
from slide_deploy.verification.runner import take_apart

__all__ = ["with_program"]

BASIS = "program: the float artifact, and its ranges on the calibration set"
NOT_JUDGED = (
    "whether each integer, scale and range is the one that was meant was not judged: "
    "verify --against model.pth --calibration tells"
)


def with_program(
    check: Check,
    path: Path,
    program: Path | None,
    expected: Sequence[Expectation],
    check_float: Callable[[Path], Check],
) -> Check:
    """The check of a quantized artifact, with what is wrong with its program.

    `program` is the float artifact that it must have been made from, `expected` has the inputs
    of each run on the calibration set, `check_float` judges a float artifact.
    """
    if program is None:
        return replace(check, notes=(*check.notes, NOT_JUDGED))
    target, scheme = registry.recognise(path).target, scheme_named(check.precision)
    with tempfile.TemporaryDirectory(prefix="slide-deploy-") as folder:
        restored = Path(folder, path.name)
        try:
            runs = [dict(expectation.inputs) for expectation in expected]
            tensors = take_apart(target, path, program, restored, runs)
            floats = check_float(restored)
        except ArtifactError as error:
            problems = (*check.problems, str(error))
            return replace(check, problems=problems, details=check.details or error.details)
    wrong = [problem for tensor in tensors if (problem := _problem(tensor, scheme))]
    result = GateResult(
        *(GateKind.QUANTIZATION, 0.0, float(len(wrong)), f"of {len(tensors)} tensors", BASIS),
        passed=not wrong,
    )
    problems = (
        *check.problems,
        *wrong,
        *(f"without quantization: {problem}" for problem in floats.problems),
    )
    return replace(
        check,
        problems=problems,
        gate=f"{check.gate}; {MEANING[GateKind.QUANTIZATION]}: none; "
        f"without quantization, {floats.gate}",
        gates=(*check.gates, result, *floats.gates),
        first_bad_block=check.first_bad_block or floats.first_bad_block,
    )


def _problem(tensor: QuantizedTensor, scheme: Scheme) -> str:
    wanted = scheme.activations if tensor.weights is None else scheme.weights
    if tensor.kind != wanted and tensor.product is None and tensor.palette is None:
        return f"{tensor.name} is {tensor.kind}, not {wanted}"
    return quantization_problem(tensor)
