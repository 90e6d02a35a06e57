"""Make one mutation in artifacts of every format, and have each judgement."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import nn

from benchmarks.mutation.bench import Bench, Seen
from benchmarks.mutation.equivalence import Widest, widest
from benchmarks.mutation.mutation import Mutation
from benchmarks.mutation.outcome import Effect, Outcome, Route, Status
from benchmarks.mutation.sampling import kind_named
from benchmarks.mutation.tensor_patch import patch
from slide_deploy.errors import ConversionError

__all__ = ["break_artifacts", "broken_module"]


def broken_module(bench: Bench, mutation: Mutation) -> nn.Module:
    """The fused module with the mistake in it."""
    broken = copy.deepcopy(bench.fused)
    mutation.apply(broken)
    return broken


def break_artifacts(
    bench: Bench, mutation: Mutation, targets: tuple[str, ...]
) -> Iterator[Outcome]:
    """One outcome per target; what was not noticed is measured for what it changes at all."""
    broken = broken_module(bench, mutation)
    most: Widest | None = None
    folder = Path(tempfile.mkdtemp(prefix="mutant-", dir=bench.folder))
    try:
        for target, (route, path) in make(bench, mutation, broken, targets, folder).items():
            if isinstance(path, str):
                yield _outcome(bench, mutation, target, route, Status.NOT_MADE, path)
                continue
            seen = bench.see(target, path)
            if seen.problem:
                yield _outcome(bench, mutation, target, route, Status.DETECTED, seen.problem, seen)
                continue
            most = most or widest(bench, broken)
            status = _unnoticed(bench, target, path, most)
            yield _outcome(bench, mutation, target, route, status, "", seen, most.effect)
    finally:
        shutil.rmtree(folder)


def _unnoticed(bench: Bench, target: str, path: Path, most: Widest) -> Status:
    if most.effect.equivalent:
        return Status.EQUIVALENT
    # Where the mistake shows most, not even the last bit differs: it is not in what is computed.
    made, sound = (bench.run(target, p, most.inputs) for p in (path, bench.clean(target)))
    return Status.MENDED if np.array_equal(made, sound) else Status.MISSED


def make(
    bench: Bench,
    mutation: Mutation,
    broken: nn.Module,
    targets: tuple[str, ...],
    folder: Path,
) -> dict[str, tuple[Route, Path | str]]:
    """The broken artifacts, in their files where that reaches; a string says why there is none."""
    made: dict[str, tuple[Route, Path | str]] = {}
    if kind_named(mutation.kind).tensors_only:
        for target in targets:
            clean = bench.clean(target)
            if patch(clean, folder / clean.name, bench.fused, broken):
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
    seen: Seen | None = None,
    effect: Effect | None = None,
) -> Outcome:
    judgement = seen.judgement if seen else None
    return Outcome(
        model=bench.name,
        kind=mutation.kind,
        site=mutation.site,
        block=mutation.block,
        detail=mutation.detail,
        target=target,
        route=route,
        status=status,
        problem=problem,
        figures=seen.figures if seen else (),
        pooled=judgement.pooled_ratio if judgement else None,
        repeated=judgement.systematic_ratio if judgement else None,
        named=seen.named_block if seen else None,
        effect=effect,
    )
