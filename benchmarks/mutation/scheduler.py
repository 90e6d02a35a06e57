"""Distributes the mutants, damaged files and clean exports of a run over processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.mutation import tasks
from benchmarks.mutation.curve import LAYERS
from benchmarks.mutation.outcome import Outcome, Results, Status
from benchmarks.mutation.plan import GOLDEN, TARGETS, Plan, unusual
from benchmarks.mutation.tasks import Subject
from slide_deploy import registry

__all__ = ["Progress", "run", "run_quantized"]

# The number of models, from the end of the plan, whose files are also truncated or stale: whether
# that is detected hardly depends on the model.
DAMAGED = 2

Progress = Callable[[str, int, int], None]
Mutant = tuple[Subject, int]
T = TypeVar("T")


def run(plan: Plan, folder: Path, progress: Progress) -> Results:
    """Run `plan` in `folder`; `progress` gets the step, the finished tasks and all tasks."""
    own = [Subject(path, folder) for path in plan.benches]
    strange = [Subject(drawn, folder) for drawn in unusual(plan.unusual)]
    trained = [Subject(path, folder) for path in plan.trained]
    halves = [Subject(path, folder, "float16") for path in plan.trained]
    halves = halves if plan.half_sites or plan.quantized_sites else []
    with _pool(plan.jobs) as pool:
        sound = trained if plan.curve_sites or plan.quantized_sites else ()
        subjects = dict.fromkeys((*own, *strange, *halves, *sound))
        _wait([pool.submit(tasks.prepare, s) for s in subjects], "clean artifacts", progress)
        mutants = _mutants(pool, own, plan)
        odd, half = (
            _mutants(pool, strange, plan),
            _mutants(pool, halves if plan.half_sites else [], plan),
        )
        damaged = [pool.submit(tasks.damage, s, t) for s in own[-DAMAGED:] for t in TARGETS]
        curve = [
            pool.submit(tasks.curve, subject, plan, layer, number)
            for subject in trained
            for layer in LAYERS
            for number in range(plan.curve_sites)
        ]
        quantized = _quantized(pool, plan, folder)
        drawn = [("float32", n) for n in range(plan.draws)]
        drawn += [("float16", n) for n in range(plan.half_draws)]
        clean = [pool.submit(tasks.clean, seed, folder, name) for name, seed in drawn]
        known = dict.fromkeys((*own, *(Subject(path, folder) for path in GOLDEN)))
        real = [pool.submit(tasks.real, subject) for subject in (known if plan.draws else own)]
        every: list[Future[Any]] = [
            *mutants,
            *odd,
            *half,
            *damaged,
            *curve,
            *quantized,
            *clean,
            *real,
        ]
        _wait(every, "mutants and clean exports", progress)
        chosen = _extremes({mutant: f.result() for f, mutant in mutants.items()})
        checks = [
            pool.submit(tasks.cross_check, subject, plan, index, target, expected)
            for subject, index, target, expected in chosen
        ]
        _wait(checks, "slide-deploy verify on a few mutants", progress)
    return Results(
        outcomes=(*_gathered(mutants), *_gathered(damaged)),
        unusual=_gathered(odd),
        half=_gathered(half),
        curve=_gathered(curve),
        quantized=_gathered(quantized),
        clean=_gathered(clean),
        real=_gathered(real),
        cross_checks=tuple(check.result() for check in checks),
    )


def run_quantized(plan: Plan, folder: Path, progress: Progress) -> tuple[Outcome, ...]:
    """Break the quantized artifacts of the plan alone."""
    targets: dict[Subject, tuple[str, ...]] = {}
    for target in dict.fromkeys(target for target, _ in plan.quantized):
        for origin in plan.quantized_models(target):
            subject = Subject(origin, folder, registry.exporter(target).quantized_from)
            targets[subject] = (*targets.get(subject, ()), target)
    with _pool(plan.jobs) as pool:
        made = [pool.submit(tasks.prepare, subject, own) for subject, own in targets.items()]
        _wait(made, "clean artifacts", progress)
        every = _quantized(pool, plan, folder)
        _wait(list(every), "quantized artifacts", progress)
    return _gathered(every)


def _quantized(pool: ProcessPoolExecutor, plan: Plan, folder: Path) -> list[Future[list[Outcome]]]:
    """The tasks that break quantized artifacts."""
    return [
        pool.submit(tasks.quantized, Subject(origin, folder), plan, target, precision)
        for target, precision in (plan.quantized if plan.quantized_sites else ())
        for origin in plan.quantized_models(target)
    ]


def _mutants(
    pool: ProcessPoolExecutor, subjects: Iterable[Subject], plan: Plan
) -> dict[Future[list[Outcome]], Mutant]:
    """The tasks for all mutations of the models."""
    return {
        pool.submit(tasks.break_one, subject, plan, index): (subject, index)
        for subject in subjects
        for index in range(len(tasks.mutations(subject, plan)))
    }


def _extremes(
    found: dict[Mutant, list[Outcome]],
) -> Iterator[tuple[Subject, int, str, int]]:
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


def _gathered(futures: Iterable[Future[list[T]]]) -> tuple[T, ...]:
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
