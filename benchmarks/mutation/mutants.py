"""Make one mutation in artifacts of every format, and verify them."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import nn

from benchmarks.mutation.bench import Bench, Observation
from benchmarks.mutation.equivalence import LargestEffect, largest_effect
from benchmarks.mutation.mutation import Mutation
from benchmarks.mutation.outcome import Effect, Outcome, Route, Status
from benchmarks.mutation.sampling import kind_named
from benchmarks.mutation.tensor_patch import patch
from slide_deploy.errors import ConversionError

__all__ = ["break_artifacts", "broken_module"]


def broken_module(bench: Bench, mutation: Mutation) -> nn.Module:
    """A copy of the fused module with the mutation."""
    broken = copy.deepcopy(bench.fused)
    mutation.apply(broken)
    return broken


def break_artifacts(
    bench: Bench, mutation: Mutation, targets: tuple[str, ...], locate: bool = True
) -> Iterator[Outcome]:
    """One outcome per target; the effect of undetected mutants is measured. `locate` also
    determines the block that a report would name."""
    broken = broken_module(bench, mutation)
    most: LargestEffect | None = None
    folder = Path(tempfile.mkdtemp(prefix="mutant-", dir=bench.folder))
    try:
        for target, (route, path) in make(bench, mutation, broken, targets, folder).items():
            if isinstance(path, str):
                yield _outcome(bench, mutation, target, route, Status.NOT_MADE, path)
                continue
            observed = bench.verify(target, path, locate)
            if observed.problem:
                yield _outcome(
                    bench, mutation, target, route, Status.DETECTED, observed.problem, observed
                )
                continue
            most = most or largest_effect(bench, broken)
            status = _undetected(bench, target, path, most)
            yield _outcome(bench, mutation, target, route, status, "", observed, most.effect)
    finally:
        shutil.rmtree(folder)


def _undetected(bench: Bench, target: str, path: Path, most: LargestEffect) -> Status:
    if most.effect.equivalent:
        return Status.EQUIVALENT
    # Identical outputs on the input with the largest effect: the computation is unchanged.
    made, sound = (bench.run(target, p, most.inputs) for p in (path, bench.clean(target)))
    return Status.INEFFECTIVE if np.array_equal(made, sound) else Status.MISSED


def make(
    bench: Bench,
    mutation: Mutation,
    broken: nn.Module,
    targets: tuple[str, ...],
    folder: Path,
) -> dict[str, tuple[Route, Path | str]]:
    """Route and path of each broken artifact, or the converter's error message.

    The file is changed where possible; otherwise the broken module is converted.
    """
    made: dict[str, tuple[Route, Path | str]] = {}
    if kind_named(mutation.kind).tensors_only:
        for target in targets:
            clean = bench.clean(target)
            if patch(clean, folder / clean.name, bench.fused, broken, bench.scheme.weights):
                made[target] = (Route.FILE, folder / clean.name)
    for target, edit in mutation.edits.items():
        if target in targets:
            clean = bench.clean(target)
            edit(clean, folder / clean.name)
            made[target] = (Route.FILE, folder / clean.name)
    capture = bench.capture(broken)
    for target in (target for target in targets if target not in made):
        try:
            found: Path | str = bench.convert(capture, target, folder / "converted")
        except ConversionError as error:
            found = error.message
        made[target] = (Route.CONVERSION, found)
    return made


def _outcome(
    bench: Bench,
    mutation: Mutation,
    target: str,
    route: Route,
    status: Status,
    problem: str,
    observed: Observation | None = None,
    effect: Effect | None = None,
) -> Outcome:
    judgement = observed.judgement if observed else None
    return Outcome(
        model=bench.name,
        kind=mutation.kind,
        site=mutation.site,
        block=bench.block_of(mutation.site),
        detail=mutation.detail,
        target=target,
        route=route,
        status=status,
        problem=problem,
        figures=observed.figures if observed else (),
        pooled=judgement.pooled_ratio if judgement else None,
        systematic=judgement.systematic_ratio if judgement else None,
        named=observed.named_block if observed else None,
        effect=effect,
    )
