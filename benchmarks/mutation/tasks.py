"""The pieces of a run, each for a process of its own; what they share is kept per process."""

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
    """The clean artifacts of a model, which mutants of files are copies of."""
    for target in TARGETS:
        _bench(checkpoint, folder).clean(target)


def mutations(checkpoint: Path, folder: Path, plan: Plan) -> tuple[Mutation, ...]:
    """The mutations of one model; the same in every process."""
    return _mutations(checkpoint, folder, plan)


def break_one(checkpoint: Path, folder: Path, plan: Plan, index: int) -> list[Outcome]:
    """One mutation in every format."""
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
    """A clean export of a model that is there."""
    return _headroom(_bench(checkpoint, folder))


def cross_check(
    checkpoint: Path, folder: Path, plan: Plan, index: int, target: str, expected: int
) -> CrossCheck:
    """What `slide-deploy verify` says of one mutant, in its own process, without a manifest."""
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
    if checkpoint.stem.startswith("module"):  # a lone module does not tell its map's size
        with np.load(vectors) as archive:
            size = archive["x"].shape[-2:]
    return load_bench(checkpoint, folder / checkpoint.stem, size)


@cache
def _mutations(checkpoint: Path, folder: Path, plan: Plan) -> tuple[Mutation, ...]:
    return sampled(_bench(checkpoint, folder).fused, plan.seed, counts(plan.sites))


def _headroom(bench: Bench) -> list[Headroom]:
    found = []
    for target in TARGETS:
        seen = bench.see(target, bench.exported(target))
        if seen.judgement is None:
            found.append(Headroom(bench.name, target, seen.problem, np.inf, np.inf, np.inf))
            continue
        worst = max(c.noise_ratio for c in seen.judgement.comparisons)
        together = (seen.judgement.pooled_ratio, seen.judgement.systematic_ratio)
        pooled, repeated = (np.inf if ratio is None else ratio for ratio in together)
        found.append(
            Headroom(bench.name, target, seen.problem, worst, pooled, repeated, seen.figures)
        )
    return found
