"""The runner worker returns the outputs of a runtime unchanged."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from slide_deploy import registry
from slide_deploy.protocols import Runtime, Session
from slide_deploy.types import Fidelity
from slide_deploy.verification import runner_worker as worker


def runtime(outputs: dict[str, np.ndarray]) -> Runtime:
    session = Session((), (), lambda _: outputs, {}, "fake 1.0", "float32", lambda _: iter(()))
    return Runtime(
        target="fake",
        recognises=lambda _: True,
        open=lambda path, *, threads=1: session,
        fidelity=lambda: Fidelity.NATIVE,
        packages=(),
        extra="",
        standard_domains=frozenset(),
    )


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """The worker's answer, and the file it left, for a runtime that puts out these arrays."""

    def work(outputs: dict[str, np.ndarray]) -> tuple[dict[str, object], Path]:
        monkeypatch.setattr(registry, "runtime", lambda _: runtime(outputs))
        monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
        given, made = tmp_path / "given.npz", tmp_path / "made.safetensors"
        np.savez(given, **{"normal/image": np.zeros(1)})
        worker.main(["fake", "model.fake", "run", str(given), str(made)])
        return json.loads(capsys.readouterr().out), made

    return work


@pytest.mark.parametrize(
    "value",
    [
        np.arange(24.0, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1),
        np.arange(6, dtype=np.float16)[::-2],
        np.float64(3.0) * np.ones(()),
        np.empty((0, 5), np.int64),
        np.array([True, False]),
    ],
    ids=["transposed", "reversed", "scalar", "empty", "bool"],
)
def test_outputs_arrive_as_they_were(run, value: np.ndarray) -> None:
    _, made = run({"y": value})
    found = load_file(made)["normal/y"]
    assert (found.shape, found.dtype) == (value.shape, value.dtype)
    np.testing.assert_array_equal(found, value)


def test_an_output_that_holds_no_numbers_is_refused_by_name(run) -> None:
    answer, made = run({"y": np.array(["cat"], dtype=object)})
    assert "model.fake has an output that is not an array of numbers" in str(answer["problem"])
    assert not made.exists()


def test_a_failure_brings_its_traceback(run) -> None:
    answer, _ = run({"y": np.array(["cat"], dtype=object)})
    assert "Traceback (most recent call last)" in str(answer["details"])
    assert "in _run_with" in str(answer["details"])


def test_a_runtime_that_tells_one_precision_tells_both_types(run) -> None:
    answer, _ = run({"y": np.zeros(1)})
    assert (answer["weight_type"], answer["compute_type"]) == ("float32", "float32")
    assert (answer["device"], answer["other_precision"]) == ("", [])
