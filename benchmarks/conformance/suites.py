"""The tests inside the coremltools wheel, and how many of their parameter sets are run."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CONTROL", "SUITES", "Control", "Suite", "suite_of"]

_OPERATIONS = "coremltools/converters/mil/mil/ops/tests"
_TORCH = "coremltools/converters/mil/frontend/torch/test"


@dataclass(frozen=True)
class Suite:
    """Test files by the start of their path, and the share of their parameter sets that is run.

    every: one parameter set of each test at least is run.
    """

    name: str
    paths: tuple[str, ...]
    share: float
    every: bool = False


# A test belongs to the first suite that its path fits.
SUITES = (
    Suite("MIL matrix products", (f"{_OPERATIONS}/iOS14/test_linear.py",), 0.15, every=True),
    Suite("MIL operations", (_OPERATIONS,), 0.12, every=True),
    Suite(
        "torch frontend",
        (f"{_TORCH}/test_torch_ops.py", f"{_TORCH}/test_torch_stateful_model.py"),
        0.05,
        every=True,
    ),
)


@dataclass(frozen=True)
class Control:
    """An operation that is made wrong on purpose, and tests that use it."""

    path: str
    operation: str
    factor: float


CONTROL = Control(f"{_OPERATIONS}/iOS14/test_linear.py", "matmul", 1.01)


def suite_of(test: str) -> Suite:
    """The suite a test belongs to, by its id."""
    return next(suite for suite in SUITES if test.startswith(suite.paths))
