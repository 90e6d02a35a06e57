"""pytest plugin of the processes that run coremltools' tests.

Each report carries what the interpreter did, as JSON in its user properties.
`CONFORMANCE_BROKEN`, as in `matmul:1.01`, makes the interpreter wrong on purpose.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import random
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks.conformance.core_ml import HALVES, pretend_mac
from benchmarks.conformance.events import EVENTS, Event, Kind
from benchmarks.conformance.suites import suite_of
from slide_deploy.validators._mil.ops import OPERATIONS

# As shares of the largest value: what float16 rounding amounts to, and what it never reaches.
FLOAT16_BOUND = 2e-3
LARGEST_ROUNDING = 2e-2

NUMBER = pytest.StashKey[int]()  # of a parameter set: whether it is run, and its random seed

_assert_allclose = np.testing.assert_allclose


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Before anything imports coremltools."""
    pretend_mac()
    np.testing.assert_allclose = _measured
    # Apple's own runtime fails here; the interpreter need not.
    pytest.xfail = _expected_failure  # type: ignore[assignment]
    if broken := os.environ.get("CONFORMANCE_BROKEN"):
        name, _, factor = broken.partition(":")
        _break(name, float(factor))


def pytest_itemcollected(item: pytest.Item) -> None:
    """Some ids hold an address, which differs from process to process."""
    item._nodeid = re.sub("0x[0-9a-f]+", "0x", item.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A sample that is always the same."""
    kept: list[pytest.Item] = []
    dropped: list[pytest.Item] = []
    places: Counter[str] = Counter()
    for item in items:
        function = item.nodeid.partition("[")[0]
        # By its place, as some ids hold random numbers.
        item.stash[NUMBER] = zlib.crc32(f"{function} {places[function]}".encode())
        suite = suite_of(item.nodeid)
        chosen = item.stash[NUMBER] % 10_000 < suite.share * 10_000
        first = suite.every and not places[function]
        (kept if chosen or first else dropped).append(item)
        places[function] += 1
    config.hook.pytest_deselected(items=dropped)
    items[:] = kept


def pytest_collection_finish() -> None:
    """coremltools collects garbage at each conversion: a second with all tests alive."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    EVENTS.clear()
    HALVES.clear()
    number = item.stash[NUMBER]
    np.random.seed(number)
    random.seed(number)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(number)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    if call.when == "call" or call.excinfo is not None:
        error = call.excinfo.typename if call.excinfo else ""
        message = str(call.excinfo.value)[:2000] if call.excinfo else ""
        carried = json.dumps((list(map(dataclasses.astuple, EVENTS)), error, message))
        item.user_properties = [("conformance", carried)]


def _expected_failure(reason: str = "") -> None:
    EVENTS.append(Event(Kind.EXPECTED_FAILURE, reason))


def _measured(
    actual: Any, desired: Any, rtol: float = 1e-7, atol: float = 0, *args: Any, **kwargs: Any
) -> None:
    """np.testing.assert_allclose; stricter on float16, and not misled by its rounding.

    Beyond the tolerance, but near, is rounding. Beyond that a prediction of a program with float16
    fails, unless the same program agrees when it is computed in float32.
    """
    if id(actual) not in HALVES:
        _assert_allclose(actual, desired, rtol, atol, *args, **kwargs)
        return
    error, (_, in_float32) = _error(actual, desired), HALVES[id(actual)]
    try:
        _assert_allclose(actual, desired, rtol, atol, *args, **kwargs)
        # Apple's helpers widen every tolerance to this in float16.
        if (rtol, atol) != (0.05, 0.5) or error <= FLOAT16_BOUND:
            return
    except AssertionError:
        if error > LARGEST_ROUNDING:
            raise
    found = f"off by {error:.0e} of the largest value"
    if error > FLOAT16_BOUND:
        try:
            _assert_allclose(in_float32(), desired, min(rtol, 1e-3), min(atol, 1e-3))
        except AssertionError:
            # An event, as Apple's helpers catch the exception and ask their own tolerance again.
            EVENTS.append(Event(Kind.OFF, found))
            raise
    EVENTS.append(Event(Kind.ROUNDED, found))


def _error(actual: Any, desired: Any) -> float:
    """The largest difference as a share of the largest value; infinite where one is not finite."""
    a, d = np.broadcast_arrays(np.asarray(actual, float), np.asarray(desired, float))
    with np.errstate(all="ignore"):
        differ = ~((a == d) | (np.isnan(a) & np.isnan(d)))
        gap = np.abs(a - d)[differ]
        largest = np.abs(d[np.isfinite(d)]).max(initial=1e-6)
    return float(gap.max(initial=0) / largest) if np.isfinite(gap).all() else np.inf


def _break(name: str, factor: float) -> None:
    """The operation's float results times a factor."""
    old = OPERATIONS[name]

    def scaled(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(**given: Any) -> Any:
            result = function(**given)
            return result * np.float32(factor) if result.dtype.kind == "f" else result

        return run

    OPERATIONS[name] = dataclasses.replace(old, function=scaled(old.function))
