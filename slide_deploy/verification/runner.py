"""Runs an artifact from disk in a fresh process (see `runner_worker`), and returns the result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from slide_deploy import registry
from slide_deploy.errors import ArtifactError, NotSupported
from slide_deploy.parity.block_trace import BlockError, BlockReference
from slide_deploy.types import Fidelity, TensorSpec
from slide_deploy.verification.runner_worker import SEPARATOR

__all__ = ["RunResult", "read_artifact", "run_artifact", "trace_artifact"]

# Artifacts run while others are converted. Threads that spin at barriers on a busy core took six
# times as long as one thread alone (measured on two cores).
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


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

    Raises ArtifactError if it cannot be loaded or run, or the runtime crashes; NotSupported if the
    file is valid but its runtime here lacks something that it uses.
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
    )


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


def _work(
    target: str, artifact: Path, task: str, given: Mapping[str, Mapping[str, np.ndarray]]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Start the runner worker; returns its answer and its arrays."""
    with tempfile.TemporaryDirectory(prefix="slide-deploy-") as folder:
        there, made = Path(folder, "given.npz"), Path(folder, "made.safetensors")
        flat = {f"{g}{SEPARATOR}{n}": v for g, values in given.items() for n, v in values.items()}
        np.savez(there, **flat)  # type: ignore[arg-type]  # numpy types kwargs as allow_pickle
        paths = (str(artifact.resolve()), task, str(there), str(made))
        done = subprocess.run(
            [sys.executable, "-m", "slide_deploy.verification.runner_worker", target, *paths],
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
            env={**os.environ, **ONE_THREAD, "PYTHONWARNINGS": "ignore"},
        )
        about = _answer(artifact, done)
        # Not .npz, whose headers numpy parses as Python source. Python 3.11 may fail if converters
        # in other threads parse source at the same time (gh-106905).
        return about, load_file(made) if made.exists() else {}


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
        kind = NotSupported if about["not_supported"] else ArtifactError
        raise kind(about["problem"], about["hint"], f"{about['details']}{done.stderr}")
    return about


def _specs(entries: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(e["name"], tuple(e["shape"]), e["dtype"]) for e in entries)
