"""The tasks of a run. Each runs in a worker process; shared objects are cached per process."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

import slide_deploy
from benchmarks.mutation.bench import Bench, load_bench
from benchmarks.mutation.clean import seeded_bench
from benchmarks.mutation.damage import reseeded, stale, truncated
from benchmarks.mutation.mutants import break_artifacts, broken_module, make
from benchmarks.mutation.mutation import Mutation
from benchmarks.mutation.outcome import CrossCheck, Headroom, Outcome
from benchmarks.mutation.plan import TARGETS, Plan, counts
from benchmarks.mutation.sampling import sampled

__all__ = ["break_one", "clean", "cross_check", "damage", "mutations", "prepare", "real"]


def prepare(checkpoint: Path, folder: Path) -> None:
    """Export the clean artifacts of a model, from which broken files are copied."""
    for target in TARGETS:
        _bench(checkpoint, folder).clean(target)


def mutations(checkpoint: Path, folder: Path, plan: Plan) -> tuple[Mutation, ...]:
    """The mutations of one model; the same in every process."""
    return _mutations(checkpoint, folder, plan)


def break_one(checkpoint: Path, folder: Path, plan: Plan, index: int) -> list[Outcome]:
    """Make and verify one mutation in every format."""
    mutation = _mutations(checkpoint, folder, plan)[index]
    return list(break_artifacts(_bench(checkpoint, folder), mutation, TARGETS))


def damage(checkpoint: Path, folder: Path, target: str) -> list[Outcome]:
    """Truncated files, and artifacts of other weights."""
    bench = _bench(checkpoint, folder)
    others = {"weights of another run": reseeded(bench.model.module, 1)}
    if bench.model.source.weights == "ema":
        last = slide_deploy.load(checkpoint, weights="model")
        others["last weights instead of averaged"] = last.module
    return [*truncated(bench, target), *stale(bench, others, target)]


def clean(seed: int, folder: Path) -> list[Headroom]:
    """A clean export of a seeded model to every format."""
    own = folder / f"seed{seed}"
    try:
        return _headroom(seeded_bench(seed, own))
    finally:
        shutil.rmtree(own, ignore_errors=True)


def real(checkpoint: Path, folder: Path) -> list[Headroom]:
    """A clean export of an existing model to every format."""
    return _headroom(_bench(checkpoint, folder))


def cross_check(
    checkpoint: Path, folder: Path, plan: Plan, index: int, target: str, expected: int
) -> CrossCheck:
    """Run the command `slide-deploy verify` on one mutant, without a manifest."""
    bench = _bench(checkpoint, folder)
    mutation = _mutations(checkpoint, folder, plan)[index]
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = make(bench, mutation, broken_module(bench, mutation), (target,), Path(scratch))
        command = [sys.executable, "-m", "slide_deploy", "verify", str(made[target][1])]
        done = subprocess.run(
            [*command, "--against", str(checkpoint)], capture_output=True, check=False
        )
    what = f"{mutation.kind}: {mutation.site} {mutation.detail}"
    return CrossCheck(target, what, expected, done.returncode)


@cache
def _bench(checkpoint: Path, folder: Path) -> Bench:
    vectors = checkpoint.with_suffix(".npz")
    size = None
    if checkpoint.stem.startswith("module"):  # a single module does not determine the map size
        with np.load(vectors) as archive:
            size = archive["x"].shape[-2:]
    return load_bench(checkpoint, folder / checkpoint.stem, size)


@cache
def _mutations(checkpoint: Path, folder: Path, plan: Plan) -> tuple[Mutation, ...]:
    return sampled(_bench(checkpoint, folder).fused, plan.seed, counts(plan.sites))


def _headroom(bench: Bench) -> list[Headroom]:
    found = []
    for target in TARGETS:
        observed = bench.verify(target, bench.exported(target))
        if observed.judgement is None:
            found.append(Headroom(bench.name, target, observed.problem, np.inf, np.inf, np.inf))
            continue
        worst = max(c.noise_ratio for c in observed.judgement.comparisons)
        together = (observed.judgement.pooled_ratio, observed.judgement.systematic_ratio)
        pooled, systematic = (np.inf if ratio is None else ratio for ratio in together)
        found.append(
            Headroom(
                bench.name, target, observed.problem, worst, pooled, systematic, observed.figures
            )
        )
    return found
