"""Measures the latency of artifacts in their own runtimes.

The speed of a machine changes over time. So each round times every artifact, and the ratio to the
first artifact is the median of the ratios of the rounds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slide_deploy import registry
from slide_deploy.artifacts.manifest import find_manifest, toolchain
from slide_deploy.errors import ArtifactError, CheckpointError, MissingLibrary, UsageError
from slide_deploy.protocols import Estimate
from slide_deploy.types import Fidelity, silent
from slide_deploy.utils.files import size_of
from slide_deploy.utils.machine import available_cores, load_average, processor_name
from slide_deploy.utils.records import rebuild

__all__ = ["Benchmark", "Timing", "bench"]

SCHEMA_VERSION = 2

# The return code of a process that was ended by SIGKILL.
KILLED = -9


@dataclass(frozen=True)
class Timing:
    """One artifact's figures with a number of threads. Latencies in milliseconds per call,
    `throughput` in images per second, memory in bytes; `ratio` is to the first timing, round by
    round. `estimates` are a compiler's for the devices of an artifact that a simulator ran."""

    name: str
    target: str
    runtime: str
    precision: str
    batch: int
    threads: int
    median_ms: float
    p10_ms: float
    p90_ms: float
    throughput: float
    ratio: float
    peak_memory_bytes: int | None
    size_bytes: int
    estimates: tuple[Estimate, ...] = ()


@dataclass(frozen=True)
class Benchmark:
    """All timings of one interleaved run, and where it ran. `notes` are what makes the figures
    less certain, and what was left out."""

    timings: tuple[Timing, ...]
    rounds: int
    calls_per_round: int
    warmup: int
    toolchain: dict[str, str]
    processor: str
    cores: int
    notes: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION


class _Worker:
    """A process that has loaded one artifact."""

    def __init__(self, target: str, path: Path, threads: int, batch: int | None) -> None:
        self.target, self.path, self.threads = target, path, threads
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-W", "ignore", "-m", "slide_deploy.bench.latency_worker"),
                *(target, str(path.resolve()), str(threads), str(batch or 1)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.about: dict[str, Any] = self.answer()
        if "problem" in self.about:
            self.close()
            raise ArtifactError(self.about["problem"], self.about["hint"] or "export it again")
        if batch and batch != self.about["batch"]:
            self.close()
            raise UsageError(
                f"{path.name} has a fixed batch of {self.about['batch']}, not {batch}",
                f"export it with --dynamic or --batch {batch}",
            )

    def ask(self, request: str) -> Any:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{request}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._broken() from None
        return self.answer()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise self._broken()
        return json.loads(line)

    def _broken(self) -> ArtifactError:
        if self.process.wait() == KILLED:
            return ArtifactError(
                f"the process of {self.path.name} was killed, probably for lack of memory",
                "measure fewer artifacts, which are loaded at the same time, or a smaller batch",
            )
        return ArtifactError(
            f"the runtime crashed on {self.path.name}", "verify the artifact first"
        )

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def bench(
    artifacts: Path | str | Sequence[Path | str],
    *,
    threads: int | Sequence[int] = 2,
    batch: int | None = None,
    rounds: int = 10,
    calls: int = 5,
    warmup: int = 5,
    progress: Callable[[str], None] = silent,
) -> Benchmark:
    """Measure artifacts alternately: `rounds` rounds of `calls` calls each, after `warmup` calls.

    Each is timed with each number of `threads`. A folder that export wrote stands for all of its
    artifacts that can be timed here. `batch` is for artifacts with a free batch, which is else 1.
    Raises UsageError for an artifact of another fixed batch, and for one whose runtime is only
    interpreted here: the time that an interpreter takes says nothing of the device.
    """
    given = [artifacts] if isinstance(artifacts, (str, Path)) else artifacts
    counts = [threads] if isinstance(threads, int) else threads
    notes = [*_machine_notes(max(counts))]
    found = [each for place in given for each in _artifacts_at(Path(place), notes)]
    notes += [
        f"{path.name} runs on a simulator: its latency and memory are not those of a device"
        for path, target in found
        if registry.runtime(target).fidelity() is Fidelity.SIMULATED
    ]
    if given and not found:
        raise UsageError("no artifact can be timed here", "; ".join(notes))
    with ExitStack() as stack:
        workers = []
        for path, target in found:
            progress(f"loading {path.name}")
            for count in counts:
                worker = _Worker(target, path, count, batch)
                stack.callback(worker.close)
                workers.append(worker)
        for worker in workers:
            worker.ask(str(warmup))
        taken: list[list[list[float]]] = [[] for _ in workers]
        for number in range(rounds):
            progress(f"timing: round {number + 1} of {rounds}")
            for worker, latencies in zip(workers, taken, strict=True):
                latencies.append(worker.ask(str(calls)))
        peaks = [worker.ask("end") for worker in workers]
    timings = tuple(
        _timing(worker, latencies, taken[0], peak)
        for worker, latencies, peak in zip(workers, taken, peaks, strict=True)
    )
    return Benchmark(
        *(timings, rounds, calls, warmup, toolchain()),
        processor=processor_name(),
        cores=available_cores(),
        notes=tuple(notes),
    )


def _machine_notes(threads: int) -> Iterator[str]:
    """Why figures of this machine, now, may be longer than they should."""
    cores, everyone = available_cores(), os.cpu_count() or 1
    if threads > cores:
        yield f"{threads} threads share {cores} core{'' if cores == 1 else 's'}: give fewer"
    load = load_average()
    if load + min(threads, cores) > everyone + 0.5:
        yield (
            f"this machine is busy, with a load average of {load:.1f} on {everyone} cores: "
            "stop other programs, and time again"
        )


def _artifacts_at(path: Path, notes: list[str]) -> list[tuple[Path, str]]:
    """Artifacts with their targets; what a folder holds and cannot be timed goes to `notes`."""
    manifest = find_manifest(path) if path.is_dir() else None
    if manifest is None:
        return [(path, _target_of(path))]
    found = []
    for record in manifest.artifacts:
        try:
            found.append((path / record.path, _target_of(path / record.path)))
        except (CheckpointError, MissingLibrary, UsageError) as error:
            notes.append(f"left out: {error.message}")
    return found


def _target_of(path: Path) -> str:
    if not path.exists():
        raise CheckpointError(f"{path} does not exist", "check the path")
    runtime = registry.recognise(path)
    registry.require(f"timing {runtime.target}", runtime.packages, runtime.extra)
    if runtime.fidelity() is Fidelity.INTERPRETED:
        raise UsageError(
            f"{path.name} can only be interpreted here, so its latency cannot be measured",
            "measure it on a machine that has its runtime",
        )
    return runtime.target


def _timing(
    worker: _Worker, latencies: list[list[float]], base: list[list[float]], peak: int | None
) -> Timing:
    every = np.array(latencies)
    ratios = [
        statistics.median(own) / statistics.median(first)
        for own, first in zip(latencies, base, strict=True)
    ]
    median = float(np.median(every))
    return Timing(
        name=worker.path.name,
        target=worker.target,
        runtime=worker.about["runtime"],
        precision=worker.about["precision"],
        batch=worker.about["batch"],
        threads=worker.threads,
        median_ms=median,
        p10_ms=float(np.percentile(every, 10)),
        p90_ms=float(np.percentile(every, 90)),
        throughput=1e3 * worker.about["batch"] / median,
        ratio=statistics.median(ratios),
        peak_memory_bytes=peak,
        size_bytes=size_of(worker.path),
        estimates=tuple(rebuild(Estimate, entry) for entry in worker.about["estimates"]),
    )
