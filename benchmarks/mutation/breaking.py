"""Make one mutation in artifacts of every format, and have each judged."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from torch import nn

from benchmarks.mutation.bench import Bench, Seen
from benchmarks.mutation.equivalence import effect_of
from benchmarks.mutation.mutation import Mutation
from benchmarks.mutation.outcome import Effect, Outcome, Route, Status
from benchmarks.mutation.patching import patch
from benchmarks.mutation.sampling import kind_named
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
    effect: Effect | None = None
    folder = Path(tempfile.mkdtemp(prefix="mutant-", dir=bench.folder))
    try:
        for target, (route, path) in make(bench, mutation, broken, targets, folder).items():
            if isinstance(path, str):
                yield _outcome(bench, mutation, target, route, Status.NOT_MADE, path)
                continue
            seen = bench.see(target, path)
            if seen.problem:
                status = Status.DETECTED
            else:
                effect = effect or effect_of(bench, broken)
                status = Status.EQUIVALENT if effect.equivalent else Status.MISSED
            yield _outcome(bench, mutation, target, route, status, seen.problem, seen, effect)
    finally:
        shutil.rmtree(folder)


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
    judged = seen.judged if seen else None
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
        ratios={c.probe: c.noise_ratio for c in judged.comparisons} if judged else {},
        errors=seen.errors if seen else {},
        pooled=judged.pooled_ratio if judged else None,
        named=seen.named_block if seen else None,
        effect=None if status is Status.DETECTED else effect,
    )
