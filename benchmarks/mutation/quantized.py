"""Breaks quantized ONNX files in one number, or in one operator that stays in float32."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.mutation.bench import Bench
from benchmarks.mutation.outcome import Outcome, Route, Status
from slide_deploy import registry
from slide_deploy.parity.probes import natural_image
from slide_deploy.parity.quantization import quantization_problem
from slide_deploy.protocols import Arrays, Calibration

__all__ = ["break_quantized"]

TARGET = "onnx"
SAMPLES = 32


@dataclass(frozen=True)
class _Sound:
    """A quantized file, the float32 file that it was made from, and runs on the calibration set."""

    bench: Bench
    program: Path
    path: Path
    runs: tuple[Arrays, ...]


Edit = Callable[[dict[str, np.ndarray], random.Random], str]


def break_quantized(bench: Bench, precision: str, sites: int, seed: int) -> list[Outcome]:
    """Break the quantized ONNX file of a model at `sites` places in each way, and verify it."""
    sound = _sound(bench, precision)
    rng = random.Random(f"{bench.name} {precision} {seed}")
    return [
        _outcome(sound, precision, kind, edit, rng)
        for kind, edit in EDITS.items()
        for _ in range(sites)
    ]


def _sound(bench: Bench, precision: str) -> _Sound:
    # A folder of its own: both precisions run at the same time.
    folder = bench.folder / precision
    folder.mkdir(exist_ok=True)
    program = Path(shutil.copy(bench.clean(TARGET), folder))
    path = folder / f"quantized-{program.name}"
    runs = _samples(bench, seed=0)
    quantize = registry.exporter(TARGET).quantize
    assert quantize is not None
    options = replace(bench.options, precision=precision, opset=21)
    quantize(program, path, Calibration(runs, {}), options)
    return _Sound(bench, program, path, runs)


def _samples(bench: Bench, seed: int) -> tuple[Arrays, ...]:
    rng = np.random.default_rng(seed)
    (spec,) = bench.model.inputs
    shape = tuple(int(size) for size in spec.shape[1:])
    images = [natural_image(shape, rng)[None].astype(np.float32) for _ in range(SAMPLES)]
    return tuple({spec.name: image} for image in images)


def _outcome(sound: _Sound, precision: str, kind: str, edit: Edit, rng: random.Random) -> Outcome:
    proto = onnx.load(sound.path)
    values = {t.name: numpy_helper.to_array(t).copy() for t in proto.graph.initializer}
    before = {name: value.copy() for name, value in values.items()}
    site = edit(values, rng)
    for tensor in proto.graph.initializer:
        if not np.array_equal(values[tensor.name], before[tensor.name]):
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    broken = sound.path.with_name(f"broken-{sound.path.name}")
    onnx.save(proto, broken)
    problem = _problem(sound, broken)
    return Outcome(
        model=sound.bench.name,
        kind=kind,
        site=site,
        block="",
        detail=precision,
        target=TARGET,
        route=Route.FILE,
        status=Status.DETECTED if problem else Status.MISSED,
        problem=problem,
    )


def _problem(sound: _Sound, path: Path) -> str:
    """The first problem of the program, found as `verify` finds it; empty without one."""
    restored = path.with_name("restored.onnx")
    take_apart = registry.runtime(TARGET).take_apart
    assert take_apart is not None
    try:
        tensors = list(take_apart(path, sound.program, restored, sound.runs))
    except Exception as error:  # `verify` too counts any exception of a loader as a failure
        return f"{type(error).__name__}: {error}"
    found = next(filter(None, map(quantization_problem, tensors)), "")
    return found or sound.bench.verify(TARGET, restored, locate=False).problem


def _named(values: Mapping[str, np.ndarray], end: str) -> list[str]:
    return sorted(name for name in values if name.endswith(end))


def _weights(values: Mapping[str, np.ndarray]) -> list[str]:
    """Names of quantized weights, without the ending."""
    names = (name.removesuffix("_quantized") for name in _named(values, "_quantized"))
    return [name for name in names if f"{name}_scale" in values]


def _ranges(values: Mapping[str, np.ndarray]) -> list[str]:
    """Names of quantized activations: they have a scale and no integers."""
    names = (name.removesuffix("_scale") for name in _named(values, "_scale"))
    return [n for n in names if f"{n}_quantized" not in values and not n.endswith("_quantized")]


def _one_integer(values: dict[str, np.ndarray], rng: random.Random) -> str:
    name = rng.choice(_weights(values))
    integers = values[f"{name}_quantized"].reshape(-1)
    index = rng.randrange(integers.size)
    integers[index] += 1 if integers[index] < np.iinfo(integers.dtype).max else -1
    return f"{name}[{index}]"


def _scaled(names: Callable[[Mapping[str, np.ndarray]], list[str]], factor: float) -> Edit:
    def edit(values: dict[str, np.ndarray], rng: random.Random) -> str:
        name = rng.choice(names(values))
        scale = values[f"{name}_scale"].reshape(-1)
        scale[rng.randrange(scale.size)] *= np.float32(factor)
        return name

    return edit


def _zero_point(values: dict[str, np.ndarray], rng: random.Random) -> str:
    name = rng.choice([*_weights(values), *_ranges(values)])
    zero = values[f"{name}_zero_point"].reshape(-1)
    index = rng.randrange(zero.size)
    zero[index] += 1 if zero[index] < np.iinfo(zero.dtype).max else -1
    return name


def _exchanged(values: dict[str, np.ndarray], rng: random.Random) -> str:
    """Two weights with scales of one shape get each other's."""
    pairs = [
        (a, b)
        for a in _weights(values)
        for b in _weights(values)
        if a < b and values[f"{a}_scale"].shape == values[f"{b}_scale"].shape
    ]
    first, other = (f"{name}_scale" for name in rng.choice(pairs))
    values[first], values[other] = values[other], values[first]
    return f"{first}, {other}"


def _other_axis(values: dict[str, np.ndarray], rng: random.Random) -> str:
    name = rng.choice([n for n in _weights(values) if values[f"{n}_scale"].size > 1])
    scale = f"{name}_scale"
    values[scale] = np.roll(values[scale], 1)
    return name


def _bias_scale(values: dict[str, np.ndarray], rng: random.Random) -> str:
    name = rng.choice(_named(values, "_quantized_scale"))
    values[name] *= np.float32(1.05)
    return name


def _float_weight(values: dict[str, np.ndarray], rng: random.Random) -> str:
    names = [n for n, v in values.items() if v.dtype == np.float32 and not n.endswith("_scale")]
    name = rng.choice(sorted(n for n in names if values[n].size > 1))
    values[name] *= np.float32(1.05)
    return name


EDITS: Mapping[str, Edit] = {
    "one integer off by one": _one_integer,
    "scale of weights 5 % too large": _scaled(_weights, 1.05),
    "scale of weights 5 % too small": _scaled(_weights, 0.95),
    "zero point off by one": _zero_point,
    "scales of another layer": _exchanged,
    "scales of other channels": _other_axis,
    "scale of a bias 5 % off": _bias_scale,
    "range 5 % too wide": _scaled(_ranges, 1.05),
    "range clipped to 80 %": _scaled(_ranges, 0.8),
    "range never calibrated": _scaled(_ranges, 6.0),
    "float32 tensor 5 % off": _float_weight,
}
