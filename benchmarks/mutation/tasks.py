"""The tasks of a run. Each runs in a worker process; shared objects are cached per process."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

import slide_deploy
from benchmarks.mutation.bench import Bench, load_bench
from benchmarks.mutation.curve import curve_points
from benchmarks.mutation.damage import reseeded, stale, truncated
from benchmarks.mutation.headroom import headroom
from benchmarks.mutation.mutants import break_artifacts, broken_module, make
from benchmarks.mutation.mutation import Mutation
from benchmarks.mutation.outcome import CrossCheck, CurvePoint, Headroom, Outcome
from benchmarks.mutation.plan import TARGETS, Plan, counts, few, half
from benchmarks.mutation.quantized import break_quantized
from benchmarks.mutation.random_models import Draw, draw, random_bench
from benchmarks.mutation.sampling import sampled
from slide_deploy import Options, registry

__all__ = [
    "Subject",
    "break_one",
    "clean",
    "cross_check",
    "curve",
    "damage",
    "mutations",
    "prepare",
    "quantized",
    "real",
]


@dataclass(frozen=True)
class Subject:
    """A model whose artifacts are broken: that of a checkpoint, or a drawn one."""

    origin: Path | Draw
    folder: Path
    precision: str = "float32"


def prepare(subject: Subject, targets: tuple[str, ...] = TARGETS) -> None:
    """Export the clean artifacts of a model, from which broken files are copied."""
    for target in targets:
        _bench(subject).clean(target)


@cache
def mutations(subject: Subject, plan: Plan) -> tuple[Mutation, ...]:
    """The mutations of one model; the same in every process."""
    return sampled(_bench(subject).fused, plan.seed, _counts(subject, plan))


def break_one(subject: Subject, plan: Plan, index: int) -> list[Outcome]:
    """Make and verify one mutation in every format."""
    mutation = mutations(subject, plan)[index]
    locate = subject.precision == "float32" and isinstance(subject.origin, Path)
    return list(break_artifacts(_bench(subject), mutation, TARGETS, locate))


def damage(subject: Subject, target: str) -> list[Outcome]:
    """Truncated files, and artifacts of other weights."""
    bench = _bench(subject)
    others = {"weights of another run": reseeded(bench.model.module, 1)}
    if bench.model.source.weights == "ema" and isinstance(subject.origin, Path):
        last = slide_deploy.load(subject.origin, weights="model")
        others["last weights instead of averaged"] = last.module
    return [*truncated(bench, target), *stale(bench, others, target)]


def curve(subject: Subject, plan: Plan, layer: str, number: int) -> list[CurvePoint]:
    """One weight of a layer, changed less and less."""
    return curve_points(_bench(subject), layer, number, plan.seed, TARGETS)


def quantized(subject: Subject, plan: Plan, target: str, precision: str) -> list[Outcome]:
    """Errors in a quantized artifact of a model."""
    made_from = replace(subject, precision=registry.exporter(target).quantized_from)
    sites, seed = plan.quantized_sites, plan.seed
    return break_quantized(_bench(made_from), target, precision, sites, seed)


def clean(seed: int, folder: Path, precision: str) -> list[Headroom]:
    """A clean export of a drawn model to every format."""
    drawn = draw(seed)
    own = folder / f"{drawn.name}_{precision}"
    try:
        return headroom(random_bench(drawn, own, precision), TARGETS, drawn.weights)
    finally:
        shutil.rmtree(own, ignore_errors=True)


def real(subject: Subject) -> list[Headroom]:
    """A clean export of an existing model to every format."""
    return headroom(_bench(subject), TARGETS)


def cross_check(subject: Subject, plan: Plan, index: int, target: str, expected: int) -> CrossCheck:
    """Run the command `slide-deploy verify` on one mutant, without a manifest."""
    bench = _bench(subject)
    mutation = mutations(subject, plan)[index]
    with tempfile.TemporaryDirectory(dir=subject.folder) as scratch:
        made = make(bench, mutation, broken_module(bench, mutation), (target,), Path(scratch))
        command = [sys.executable, "-m", "slide_deploy", "verify", str(made[target][1])]
        done = subprocess.run(
            [*command, "--against", str(subject.origin)], capture_output=True, check=False
        )
    what = f"{mutation.kind}: {mutation.site} {mutation.detail}"
    return CrossCheck(target, what, expected, done.returncode)


@cache
def _bench(subject: Subject) -> Bench:
    origin = subject.origin
    if isinstance(origin, Draw):
        folder = subject.folder / f"{origin.name}_{subject.precision}"
        return random_bench(origin, folder, subject.precision)
    size = None
    if origin.stem.startswith("module"):  # a single module does not determine the map size
        with np.load(origin.with_suffix(".npz")) as archive:
            size = archive["x"].shape[-2:]
    folder = subject.folder / f"{origin.stem}_{subject.precision}"
    return load_bench(origin, folder, size, Options(precision=subject.precision))


def _counts(subject: Subject, plan: Plan) -> Mapping[str, int]:
    if subject.precision != "float32":
        return half(plan.half_sites)
    return few(plan.sites) if isinstance(subject.origin, Draw) else counts(plan.sites)
