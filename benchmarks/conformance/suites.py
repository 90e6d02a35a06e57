"""The tests inside the coremltools wheel, and how many of their parameter sets are run."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CONTROL", "SUITES", "Control", "Suite", "suite_of"]

_MIL = "coremltools/converters/mil"


@dataclass(frozen=True)
class Suite:
    """Test files by the start of their path, and the share of their parameter sets that is run.

    every: one parameter set of each test at least is run.
    """

    name: str
    paths: tuple[str, ...]
    share: float
    every: bool = False


SUITES = (
    Suite("MIL operations", (f"{_MIL}/mil/ops/tests",), 0.01, every=True),
    Suite(
        "torch frontend",
        tuple(
            f"{_MIL}/frontend/torch/test/test_torch_{name}.py"
            for name in ("ops", "quantization_ops", "stateful_model")
        ),
        0.004,
    ),
    Suite(
        "passes and compression",
        (
            f"{_MIL}/mil/passes/tests",
            f"{_MIL}/backend/mil",
            "coremltools/test/optimize/coreml",
            "coremltools/test/ml_program/test_compression.py",
        ),
        0.01,
    ),
)


@dataclass(frozen=True)
class Control:
    """An operation that is made wrong on purpose, and tests that use it."""

    path: str
    operation: str
    factor: float


CONTROL = Control(f"{_MIL}/mil/ops/tests/iOS14/test_linear.py", "matmul", 1.01)


def suite_of(test: str) -> Suite:
    """The suite a test belongs to, by its id."""
    return next(suite for suite in SUITES if test.startswith(suite.paths))
