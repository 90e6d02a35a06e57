"""Distributes the mutants, damaged files and clean exports of a run over processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.mutation import tasks
from benchmarks.mutation.outcome import Headroom, Outcome, Results, Status
from benchmarks.mutation.plan import GOLDEN, TARGETS, Plan

__all__ = ["Progress", "run"]

Progress = Callable[[str, int, int], None]
Origin = tuple[Path, int]


def run(plan: Plan, folder: Path, progress: Progress) -> Results:
    """Run `plan` in `folder`; `progress` gets the step, the finished tasks and all tasks."""
    with _pool(plan.jobs) as pool:
        for number, path in enumerate(plan.benches):
            progress("clean artifacts", number, len(plan.benches))
            pool.submit(tasks.prepare, path, folder).result()
        mutants = {
            pool.submit(tasks.break_one, path, folder, plan, index): (path, index)
            for path in plan.benches
            for index in range(len(tasks.mutations(path, folder, plan)))
        }
        damaged = [
            pool.submit(tasks.damage, path, folder, target)
            for path in plan.benches
            for target in TARGETS
        ]
        clean = [pool.submit(tasks.clean, seed, folder) for seed in range(plan.seeds)]
        known = dict.fromkeys((*plan.benches, *(GOLDEN if plan.seeds else ())))
        real = [pool.submit(tasks.real, path, folder) for path in known]
        _wait([*mutants, *damaged, *clean, *real], "mutants and clean exports", progress)
        chosen = _extremes({origin: f.result() for f, origin in mutants.items()})
        checks = [
            pool.submit(tasks.cross_check, path, folder, plan, index, target, expected)
            for path, index, target, expected in chosen
        ]
        _wait(checks, "slide-deploy verify on a few mutants", progress)
    outcomes = [o for future in (*mutants, *damaged) for o in future.result()]
    return Results(
        outcomes=tuple(outcomes),
        clean=_gathered(clean),
        real=_gathered(real),
        cross_checks=tuple(check.result() for check in checks),
    )


def _extremes(found: dict[Origin, list[Outcome]]) -> Iterator[tuple[Path, int, str, int]]:
    """Per target, the detected mutant with the least error and the undetected with the largest."""
    every = [(origin, outcome) for origin, outcomes in found.items() for outcome in outcomes]
    for target in TARGETS:
        own = [(origin, o) for origin, o in every if o.target == target and o.pooled is not None]
        detected = [entry for entry in own if entry[1].status is Status.DETECTED]
        undetected = [entry for entry in own if entry[1].status is not Status.DETECTED]
        for entries, choose, expected in ((detected, min, 1), (undetected, max, 0)):
            if entries:
                origin, _ = choose(entries, key=lambda entry: entry[1].pooled or 0.0)
                yield *origin, target, expected


def _gathered(futures: list[Future[list[Headroom]]]) -> tuple[Headroom, ...]:
    return tuple(one for future in futures for one in future.result())


def _wait(futures: list[Future[Any]], step: str, progress: Progress) -> None:
    for done, future in enumerate(as_completed(futures), 1):
        future.result()
        progress(step, done, len(futures))


@contextmanager
def _pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    # One thread each, since the processes occupy the cores.
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
