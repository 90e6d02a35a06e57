"""Run the tests of the suites in processes of pytest, and judge what they report."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from benchmarks.conformance.events import Event, Kind
from benchmarks.conformance.outcome import Outcome, Result, judged
from benchmarks.conformance.suites import suite_of

__all__ = ["BROKEN", "run"]

# The variable that tells the processes which operation to break, see the plugin.
BROKEN = "CONFORMANCE_BROKEN"

# Which of Apple's tests there are, and that each process collects the same ones in one order.
ENVIRONMENT = {
    "PYMIL_TEST_TARGETS": "mlprogram",
    "INCLUDE_MIL_FP32_UNIT_TESTS": "1",
    "RUN_BACKWARD_COMPATIBILITY": "1",  # all deployment targets, not only the first
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
}


class _Judge:
    """pytest plugin of the main process: reports become results."""

    def __init__(self) -> None:
        self.results: list[Result] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        carried = dict(report.user_properties).get("conformance")
        if carried is None or (report.when != "call" and report.outcome == "passed"):
            return
        events, error, message = json.loads(carried)
        events = [Event(Kind(kind), text) for kind, text in events]
        suite = suite_of(report.nodeid).name
        self.results.append(judged(suite, report.nodeid, report.outcome, events, error, message))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and report.nodeid not in {result.test for result in self.results}:
            reason = str(report.longrepr).strip().splitlines()[-1]
            suite = suite_of(report.nodeid).name
            self.results.append(Result(suite, report.nodeid, Outcome.NOT_REACHED, reason))


def run(paths: Sequence[str], jobs: int, broken: str = "") -> list[Result]:
    """The results of the tests below `paths` of the installed packages, sorted by test.

    broken: an operation that is made wrong on purpose and a factor, as in "matmul:1.01".
    """
    spec = importlib.util.find_spec("coremltools")
    assert spec is not None
    assert spec.origin is not None
    packages = Path(spec.origin).parents[1]
    judge = _Judge()
    options = f"-c {os.devnull} --rootdir {packages} -p benchmarks.conformance.plugin -n {jobs}"
    options += " -p no:cacheprovider -q --no-header --tb=no -W ignore --timeout 120"
    options += " --continue-on-collection-errors"
    tests = [str(packages / path) for path in paths if (packages / path).exists()]
    # coremltools removes its packages only when a process ends.
    with TemporaryDirectory() as folder:
        os.environ.update(ENVIRONMENT, TMPDIR=folder, **{BROKEN: broken})
        pytest.main([*options.split(), *tests], plugins=[judge])
    return sorted(judge.results, key=lambda result: result.test)
