"""Measures the latency of artifacts in their own runtimes.

The speed of a machine changes over time. So each round times every artifact, and the ratio to the
first artifact is the median of the ratios of the rounds.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slide_deploy import registry
from slide_deploy.errors import ArtifactError, CheckpointError, UsageError
from slide_deploy.types import Fidelity, silent
from slide_deploy.utils.files import size_of

__all__ = ["Benchmark", "Timing", "bench"]

SCHEMA_VERSION = 1

# The return code of a process that was ended by SIGKILL.
KILLED = -9


@dataclass(frozen=True)
class Timing:
    """The results of one artifact. Latencies are in milliseconds per call, `throughput` in images
    per second, memory in bytes; `ratio` is relative to the first artifact."""

    name: str
    target: str
    runtime: str
    precision: str
    batch: int
    median_ms: float
    p10_ms: float
    p90_ms: float
    throughput: float
    ratio: float
    peak_memory_bytes: int | None
    size_bytes: int


@dataclass(frozen=True)
class Benchmark:
    """All timings of one interleaved run."""

    timings: tuple[Timing, ...]
    threads: int
    rounds: int
    calls_per_round: int
    warmup: int
    toolchain: dict[str, str]
    schema_version: int = SCHEMA_VERSION


class _Worker:
    """A process that has loaded one artifact."""

    def __init__(self, target: str, path: Path, threads: int) -> None:
        self.path = path
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-W", "ignore", "-m", "slide_deploy.bench.latency_worker"),
                *(target, str(path.resolve()), str(threads)),
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
    threads: int = 2,
    rounds: int = 10,
    calls: int = 5,
    warmup: int = 5,
    progress: Callable[[str], None] = silent,
) -> Benchmark:
    """Measure artifacts alternately: `rounds` rounds of `calls` calls each, after `warmup` calls.

    Raises UsageError for an artifact that is only interpreted here, since the latency of the
    interpreter is unrelated to that of the device.
    """
    from slide_deploy.artifacts.manifest import toolchain

    given = [artifacts] if isinstance(artifacts, (str, Path)) else artifacts
    with ExitStack() as stack:
        workers = []
        for path in map(Path, given):
            progress(f"loading {path.name}")
            worker = _Worker(_target_of(path), path, threads)
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
    return Benchmark(timings, threads, rounds, calls, warmup, toolchain())


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
        target=_target_of(worker.path),
        runtime=worker.about["runtime"],
        precision=worker.about["precision"],
        batch=worker.about["batch"],
        median_ms=median,
        p10_ms=float(np.percentile(every, 10)),
        p90_ms=float(np.percentile(every, 90)),
        throughput=1e3 * worker.about["batch"] / median,
        ratio=statistics.median(ratios),
        peak_memory_bytes=peak,
        size_bytes=size_of(worker.path),
    )
