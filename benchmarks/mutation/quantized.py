"""Breaks quantized artifacts in one number, or in one tensor that stays in floating point."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.mutation.bench import Bench
from benchmarks.mutation.outcome import Outcome, Route, Status
from benchmarks.mutation.plan import SLOWLY_COMPILED
from benchmarks.mutation.quantized_edits import EDITS, Edit, NoSite
from benchmarks.mutation.quantized_files import READERS
from slide_deploy import hexagon, registry
from slide_deploy.ethos_u.files import GRAPH
from slide_deploy.parity.probes import natural_image
from slide_deploy.parity.quantization import quantization_problem
from slide_deploy.protocols import Arrays, Calibration

__all__ = ["BINARIES", "PROGRAM", "SOUND", "STALE", "break_quantized"]

SAMPLES = 32

STALE, SOUND = "ranges of another calibration set", "sound"

# What may be wrong with the compiled part of an artifact.
BINARIES = ("binary of another export", "binary of another SoC", "truncated binary")
PROGRAM = "program and binary of another export"
OTHER_SOC = "SM8750"
NPUS = ("ethos-u85-256", "ethos-u85-128")

Files = Mapping[Path, bytes]


@dataclass(frozen=True)
class _Sound:
    """A quantized artifact, the float one that it was made from, and the calibration set."""

    bench: Bench
    target: str
    precision: str
    program: Path
    path: Path
    runs: tuple[Arrays, ...]


def break_quantized(
    bench: Bench, target: str, precision: str, sites: int, seed: int
) -> list[Outcome]:
    """Break the quantized artifact of a model at `sites` places in each way, and verify it; also
    verify two sound ones, of different calibration sets, and one with the other's set.

    The artifacts of `bench` are those that the quantized ones are made from.
    """
    # A folder of its own: other precisions run at the same time.
    folder = bench.folder / f"{target}-{precision}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    first, other = (_quantized(bench, target, precision, folder, n) for n in (0, 1))
    rng = random.Random(f"{bench.name} {target} {precision} {seed}")
    outcomes = [*_edited(first, sites, rng)]
    outcomes += [_judged(one, SOUND, one.path, f"set {n}") for n, one in enumerate((first, other))]
    if precision.partition("a")[2]:  # activations are quantized, too
        outcomes.append(_judged(replace(other, runs=first.runs), STALE, other.path, "every range"))
    if registry.runtime(target).compiled_problems:
        outcomes += _with_binaries(first, other)
    return outcomes


def _edited(sound: _Sound, sites: int, rng: random.Random) -> Iterator[Outcome]:
    # Otherwise the numbers alone are judged: the programs are not compiled again.
    compiled = sound.target not in SLOWLY_COMPILED
    for kind, edit in EDITS.items():
        for _ in range(sites):
            broken = sound.path.with_name(f"broken-{sound.path.name}")
            try:
                site = _edit(sound, edit, broken, rng)
            except NoSite:
                continue
            yield _judged(sound, kind, broken, site, compiled=compiled)
            shutil.rmtree(broken) if broken.is_dir() else broken.unlink()


def _with_binaries(sound: _Sound, other: _Sound) -> Iterator[Outcome]:
    """The artifact with compiled parts that do not belong to its quantized file."""
    for kind, wrong in _WRONG_BINARIES[sound.target](sound.path, other.path):
        right = {path: path.read_bytes() for path in wrong}
        _write(wrong)
        yield _judged(sound, kind, sound.path, ", ".join(path.name for path in wrong))
        _write(right)


def _hexagon_binaries(sound: Path, other: Path) -> Iterator[tuple[str, Files]]:
    (context,) = sound.glob("S*.onnx")
    again = sound / f"{OTHER_SOC}.onnx"
    hexagon.compile_for(OTHER_SOC, sound / hexagon.MODEL, again)
    content = context.read_bytes()
    wrong = (other / context.name).read_bytes(), again.read_bytes(), content[:-4096]
    again.unlink()
    for kind, binary in zip(BINARIES, wrong, strict=True):
        yield kind, {context: binary}


def _ethos_u_binaries(sound: Path, other: Path) -> Iterator[tuple[str, Files]]:
    first, second = (sound / f"{name}.pte" for name in NPUS)
    content = first.read_bytes()
    wrong = (other / first.name).read_bytes(), second.read_bytes(), content[: len(content) // 2]
    for kind, binary in zip(BINARIES, wrong, strict=True):
        yield kind, {first: binary}
    programs = [own for own in sound.iterdir() if own.name != GRAPH]
    yield PROGRAM, {own: (other / own.name).read_bytes() for own in programs}


def _write(files: Files) -> None:
    for path, content in files.items():
        path.write_bytes(content)


_WRONG_BINARIES: Mapping[str, Callable[[Path, Path], Iterator[tuple[str, Files]]]] = {
    "qnn": _hexagon_binaries,
    "ethos-u": _ethos_u_binaries,
}


def _edit(sound: _Sound, edit: Edit, broken: Path, rng: random.Random) -> str:
    values, write = READERS[sound.target](sound.path)
    changed = {name: value.copy() for name, value in values.items()}
    site = edit(changed, rng)
    write({n: v for n, v in changed.items() if not np.array_equal(v, values[n])}, broken)
    return site


def _quantized(bench: Bench, target: str, precision: str, folder: Path, seed: int) -> _Sound:
    clean, own = bench.clean(target), folder / f"set-{seed}"
    own.mkdir()
    copy = shutil.copytree if clean.is_dir() else shutil.copy
    program = Path(copy(clean, own / clean.name))
    path = own / f"quantized-{program.name}"
    runs = _samples(bench, seed)
    exporter, runtime = registry.exporter(target), registry.runtime(target)
    assert exporter.quantize is not None
    ranges = partial(runtime.ranges, program, runs) if runtime.ranges else None
    options = replace(
        bench.options,
        precision=precision,
        opset=21 if target == "onnx" else None,
        target_options={"device": ",".join(NPUS)} if target == "ethos-u" else {},
    )
    exporter.quantize(program, path, Calibration(runs, {}, ranges=ranges), options)
    return _Sound(bench, target, precision, program, path, runs)


def _samples(bench: Bench, seed: int) -> tuple[Arrays, ...]:
    rng = np.random.default_rng(seed)
    (spec,) = bench.model.inputs
    shape = tuple(int(size) for size in spec.shape[1:])
    images = [natural_image(shape, rng)[None].astype(np.float32) for _ in range(SAMPLES)]
    return tuple({spec.name: image} for image in images)


def _judged(sound: _Sound, kind: str, path: Path, site: str, *, compiled: bool = True) -> Outcome:
    problem = _problem(sound, path, compiled)
    return Outcome(
        model=sound.bench.name,
        kind=kind,
        site=site,
        block="",
        detail=sound.precision,
        target=sound.target,
        route=Route.FILE,
        status=Status.DETECTED if problem else _undetected(sound, path),
        problem=problem,
    )


def _undetected(sound: _Sound, path: Path) -> Status:
    """Without an effect where the outputs are the same on the whole calibration set."""
    opened = [registry.runtime(sound.target).open(one) for one in (sound.path, path)]
    for run in sound.runs:
        first, other = (session.run(run) for session in opened)
        if not all(np.array_equal(first[name], other[name]) for name in first):
            return Status.MISSED
    return Status.INEFFECTIVE


def _problem(sound: _Sound, path: Path, compiled: bool) -> str:
    """The first problem of the program, and of what is `compiled` from it, found as `verify` finds
    it; empty without one."""
    restored = path.with_name(f"restored-{path.name}")
    runtime = registry.runtime(sound.target)
    assert runtime.take_apart is not None
    try:
        tensors = list(runtime.take_apart(path, sound.program, restored, sound.runs))
        found = next(filter(None, map(quantization_problem, tensors)), "")
        if found:
            return found
        found = sound.bench.verify(sound.target, restored, locate=False, program=False).problem
        if found or not compiled or not runtime.compiled_problems:
            return found
        return next(iter(runtime.compiled_problems(path)), "")
    except Exception as error:  # `verify` too counts any exception of a loader as a failure
        return f"{type(error).__name__}: {error}"
    finally:
        if restored.is_dir():
            shutil.rmtree(restored)
        else:
            restored.unlink(missing_ok=True)
