"""Runs an artifact from disk in a fresh process (see `runner_worker`), and returns the result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from slide_deploy import registry
from slide_deploy.errors import (
    ArtifactError,
    DifferentProgram,
    NotSupported,
    OutputError,
    SlideDeployError,
    UsageError,
)
from slide_deploy.parity.block_trace import BlockError, BlockReference
from slide_deploy.parity.expectation import Expectation
from slide_deploy.parity.logarithms import with_logarithms
from slide_deploy.protocols import Estimate, Piece, QuantizedTensor, RoundedTensor
from slide_deploy.types import Fidelity, TensorSpec
from slide_deploy.utils.records import rebuild
from slide_deploy.verification.runner_worker import SEPARATOR, no_room

__all__ = [
    "RunResult",
    "compiled_problems",
    "read_artifact",
    "reduce_artifact",
    "run_artifact",
    "run_expected",
    "stop_runners",
    "take_apart",
    "trace_artifact",
    "widen",
]

# Artifacts run while others are converted. Threads that spin at barriers on a busy core took six
# times as long as one thread alone (measured on two cores).
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

_KINDS: dict[str, type[SlideDeployError]] = {
    kind.__name__: kind for kind in (NotSupported, DifferentProgram, OutputError, UsageError)
}
_RUNNING: set[subprocess.Popen[str]] = set()


@dataclass(frozen=True)
class RunResult:
    """Outputs of an artifact by probe and name, and properties of its `Session`."""

    outputs: Mapping[str, Mapping[str, np.ndarray]]
    inputs: tuple[TensorSpec, ...]
    output_specs: tuple[TensorSpec, ...]
    operators: Mapping[str, int]
    custom_operators: tuple[str, ...]
    violations: tuple[str, ...]
    runtime: str
    precision: str
    fidelity: Fidelity
    weight_type: str
    compute_type: str
    device: str = ""
    other_precision: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    estimates: tuple[Estimate, ...] = ()


def run_artifact(
    path: Path | str, feeds: Mapping[str, Mapping[str, np.ndarray]], *, target: str = ""
) -> RunResult:
    """Run an artifact on disk in a fresh process, on each entry of `feeds`.

    `feeds` maps any name to one set of inputs (input name → array); the result has outputs by the
    same names. The target follows from the artifact's file name, unless `target` is given. Raises
    UsageError for a file of no known target, MissingLibrary if its runtime is not installed,
    ArtifactError if it cannot be loaded or run.
    """
    runtime = registry.runtime(target) if target else registry.recognise(Path(path))
    registry.require(f"reading {runtime.target}", runtime.packages, runtime.extra)
    return read_artifact(runtime.target, Path(path), feeds)


def read_artifact(
    target: str,
    artifact: Path,
    feeds: Mapping[str, Mapping[str, np.ndarray]],
    *,
    second: bool = False,
) -> RunResult:
    """Run `artifact` on every probe of `feeds` (probe → input name → array), in the target's
    runtime or in the `second`, independent one.

    Raises ArtifactError where it cannot be loaded or run, also where the runtime crashes, of these
    NotSupported where the file is sound but its runtime here lacks what it uses, and OutputError
    where the temporary folder is full.
    """
    about, made = _work(target, artifact, "run-second" if second else "run", feeds)
    outputs: dict[str, dict[str, np.ndarray]] = {probe: {} for probe in feeds}
    for key, value in made.items():
        probe, _, name = key.partition(SEPARATOR)
        outputs[probe][name] = value
    return RunResult(
        outputs=outputs,
        inputs=_specs(about["inputs"]),
        output_specs=_specs(about["outputs"]),
        operators=about["operators"],
        custom_operators=tuple(about["custom_operators"]),
        violations=tuple(about["violations"]),
        runtime=about["runtime"],
        precision=about["precision"],
        fidelity=Fidelity(about["fidelity"]),
        weight_type=about["weight_type"],
        compute_type=about["compute_type"],
        device=about["device"],
        other_precision=tuple(about["other_precision"]),
        metadata=about["metadata"],
        estimates=tuple(rebuild(Estimate, entry) for entry in about["estimates"]),
    )


def run_expected(
    target: str, artifact: Path, expected: Sequence[Expectation], *, second: bool = False
) -> RunResult:
    """The run of an artifact on the inputs of these expectations, as `read_artifact`, with its
    outputs as they are compared."""
    feeds = {expectation.probe: dict(expectation.inputs) for expectation in expected}
    result = read_artifact(target, artifact, feeds, second=second)
    return replace(result, outputs=with_logarithms(result.outputs, expected))


def trace_artifact(
    target: str,
    artifact: Path,
    inputs: Mapping[str, np.ndarray],
    references: Sequence[BlockReference],
) -> tuple[BlockError, ...]:
    """The artifact's error at each block on one input; raises the errors of `read_artifact`."""
    given = {
        "input": inputs,
        "block": {r.block: r.reference for r in references},
        "noise": {r.block: np.array(r.noise_floor) for r in references},
    }
    about, _ = _work(target, artifact, "trace", given)
    return tuple(BlockError(**entry) for entry in about["blocks"])


def take_apart(
    target: str,
    artifact: Path,
    program: Path,
    restored: Path,
    runs: Sequence[Mapping[str, np.ndarray]],
) -> tuple[QuantizedTensor, ...]:
    """See `Runtime.take_apart`; raises the errors of `read_artifact`."""
    paths = {"program": np.array(str(program)), "restored": np.array(str(restored))}
    numbered = {str(number): run for number, run in enumerate(runs)}
    about, made = _work(target, artifact, "take-apart", {"paths": paths} | numbered)
    return tuple(QuantizedTensor(**fields) for fields in _tensors(about, made))


def compiled_problems(target: str, artifact: Path) -> tuple[str, ...]:
    """See `Runtime.compiled_problems`; raises the errors of `read_artifact`."""
    about, _ = _work(target, artifact, "compiled-problems", {})
    return tuple(about["problems"])


def widen(target: str, artifact: Path, program: Path, restored: Path) -> tuple[RoundedTensor, ...]:
    """See `Runtime.widen`; raises the errors of `read_artifact`."""
    paths = {"program": np.array(str(program)), "restored": np.array(str(restored))}
    about, made = _work(target, artifact, "widen", {"paths": paths})
    return tuple(RoundedTensor(**fields) for fields in _tensors(about, made))


def _tensors(about: Mapping[str, Any], made: Mapping[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    """The fields of each tensor that the worker found."""
    arrays: list[dict[str, np.ndarray]] = [{} for _ in about["tensors"]]
    for key, value in made.items():
        number, _, name = key.partition(SEPARATOR)
        arrays[int(number)][name] = value
    yield from (plain | own for plain, own in zip(about["tensors"], arrays, strict=True))


def reduce_artifact(
    target: str,
    artifact: Path,
    program: Path,
    piece: Path,
    runs: Sequence[Mapping[str, np.ndarray]],
) -> Piece:
    """See `Runtime.reduce`; raises the errors of `read_artifact`."""
    paths = {"program": np.array(str(program)), "piece": np.array(str(piece.absolute()))}
    numbered = {str(number): run for number, run in enumerate(runs)}
    about, made = _work(target, artifact, "reduce", {"paths": paths} | numbered)
    arrays: dict[str, list[dict[str, np.ndarray]]] = {
        kind: [{} for _ in runs] for kind in ("inputs", "outputs", "rounded")
    }
    for key, value in made.items():
        kind, _, rest = key.partition(SEPARATOR)
        number, _, name = rest.partition(" ")
        arrays[kind][int(number)][name] = value
    return Piece(
        operators=tuple(about["operators"]),
        total=about["total"],
        differing=about["differing"],
        inputs=arrays["inputs"],
        outputs=arrays["outputs"],
        rounded=arrays["rounded"],
    )


def _work(
    target: str, artifact: Path, task: str, given: Mapping[str, Mapping[str, np.ndarray]]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Start the runner worker; its answer and the arrays it left."""
    try:
        with tempfile.TemporaryDirectory(prefix="slide-deploy-") as folder:
            there, made = Path(folder, "given.npz"), Path(folder, "made.safetensors")
            flat = {f"{g}{SEPARATOR}{n}": v for g, vs in given.items() for n, v in vs.items()}
            np.savez(there, **flat)  # type: ignore[arg-type]  # numpy types kwargs as allow_pickle
            paths = (str(artifact.resolve()), task, str(there), str(made))
            about = _answer(artifact, _run_worker(folder, target, *paths))
            # Not .npz, whose headers numpy parses as Python source: artifacts are read in threads
            # beside converters that parse source too, which Python 3.11 can fail at (gh-106905).
            return about, load_file(made) if made.exists() else {}
    except OSError as error:
        raise no_room(error) from error


def _run_worker(folder: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run`, and `stop_runners` ends it from another thread."""
    command = [sys.executable, "-m", "slide_deploy.verification.runner_worker", *arguments]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, **ONE_THREAD, "PYTHONWARNINGS": "ignore"},
    ) as process:
        _RUNNING.add(process)
        try:
            out, err = process.communicate()
        except BaseException:
            process.kill()
            raise
        finally:
            _RUNNING.discard(process)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def stop_runners() -> None:
    """Kill every worker that runs now; whoever waits for one gets an ArtifactError."""
    for process in tuple(_RUNNING):
        process.kill()


def _answer(artifact: Path, done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    try:
        about: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ArtifactError(
            f"the runtime crashed on {artifact.name} (exit {done.returncode}): {last[:200]}",
            "--debug shows its output",
            done.stderr,
        ) from None
    if "problem" in about:
        raise _KINDS.get(about["kind"], ArtifactError)(
            about["problem"], about["hint"], f"{about['details']}{done.stderr}"
        )
    return about


def _specs(entries: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(e["name"], tuple(e["shape"]), e["dtype"]) for e in entries)
