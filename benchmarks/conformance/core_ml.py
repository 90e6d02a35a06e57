"""Core ML's part of coremltools, which has none on Linux: a proxy that loads and predicts."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.conformance.events import EVENTS, Event, Kind, told
from benchmarks.conformance.widening import holds_float16, in_float32
from slide_deploy.errors import ArtifactError
from slide_deploy.validators import _mil
from slide_deploy.validators._mil.dtypes import Array, dtype_named

__all__ = ["HALVES", "pretend_mac"]

# What else coremltools looks for there, and does without where it is None.
OTHERS = (
    *("_MLCPUComputeDeviceProxy", "_MLGPUComputeDeviceProxy", "_MLNeuralEngineComputeDeviceProxy"),
    *("_MLComputePlanProxy", "_MLModelAssetProxy"),
)

# Arrays of programs with float16 that the running test was given, by id, each with what gives it
# in float32.
HALVES: dict[int, tuple[Array, Callable[[], Array]]] = {}

NEWEST_SPECIFICATION = 10  # iOS 26, the newest that coremltools 9.0 writes


def pretend_mac() -> None:
    """Put the proxy in place of coremltools' compiled one, and let its tests believe in a Mac."""
    module = ModuleType("coremltools.libcoremlpython")
    vars(module).update(dict.fromkeys(OTHERS), _MLModelProxy=_MLModelProxy)
    sys.modules[module.__name__] = module
    from coremltools import _deps
    from coremltools.models import utils

    # Other modules hold these two by name: the functions stay, and are given other code.
    inspect.unwrap(utils._is_macos).__code__ = (lambda: True).__code__
    inspect.unwrap(utils._macos_version).__code__ = (lambda: (15, 5)).__code__
    _deps._IS_MACOS = True


class _MLModelProxy:
    """A package that the interpreter has read; the names are those coremltools calls."""

    def __init__(
        self, path: str, units: str = "", function: str = "", hints: Any = None, asset: Any = None
    ) -> None:
        del units, hints
        if asset is not None or not (Path(path) / "Manifest.json").is_file():
            EVENTS.append(Event(Kind.NOT_A_PROGRAM, "compiled, or a neural network (.mlmodel)"))
            raise RuntimeError("not a .mlpackage")
        with told():
            self.program = _mil.read_package(Path(path), function or None)
            broken = _mil.violations(self.program)
            if broken:
                raise ArtifactError("; ".join(broken))
        names = _mil.histogram(self.program)
        EVENTS.extend(Event(Kind.OPERATION, name) for name in names)

    @staticmethod
    def maximum_supported_specification_version() -> int:
        return NEWEST_SPECIFICATION

    def predict(self, data: Mapping[str, Any], state: _State | None = None) -> dict[str, Any]:
        def note(rule: str) -> None:
            EVENTS.append(Event(Kind.RULE, rule.partition(": ")[2]))

        values = None if state is None else state.values
        wide = {k: v.astype(np.float32) for k, v in (values or {}).items()}
        with told():
            returned = _predicted(self.program, data, note, values)
        EVENTS.append(Event(Kind.PREDICTED))

        def unrounded(name: str) -> Array:
            program = in_float32(self.program)
            array: Array = _predicted(program, data, note, wide or None)[name]
            return array

        if holds_float16(self.program):
            for name, array in returned.items():
                HALVES[id(array)] = (array, partial(unrounded, name))
        return returned

    def batchPredict(self, batch: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [self.predict(data) for data in batch]

    def newState(self) -> _State:
        return _State(self.program)


class _State:
    """States between predictions, which float32 arrays are read from and written to."""

    def __init__(self, program: _mil.Program) -> None:
        self.values = _mil.new_state(program)

    def read_state(self, name: str) -> Array:
        return self.values[name].astype(np.float32)

    def write_state(self, name: str, value: Array) -> None:
        self.values[name] = value.astype(self.values[name].dtype)


def _predicted(
    program: _mil.Program,
    data: Mapping[str, Any],
    note: Callable[[str], None],
    state: dict[str, Array] | None,
) -> dict[str, Any]:
    feeds = {f.name: _given(f, data) for f in program.inputs}
    outputs = _mil.evaluate(program, feeds, note=note, state=state)
    return {f.name: _returned(f, outputs[f.name]) for f in program.outputs}


def _given(feature: _mil.Feature, data: Mapping[str, Any]) -> Array:
    """An input as Core ML takes it: of the declared type, an image as it is stored."""
    if feature.name not in data:
        raise ArtifactError(f"the input {feature.name} is not given")
    value = np.asarray(data[feature.name])
    if feature.image:
        return value.astype(np.float16) if value.dtype == np.float32 else value
    value = value.astype(dtype_named(feature.dtype).numpy)
    return value.reshape(()) if feature.shape == () and value.size == 1 else value


def _returned(feature: _mil.Feature, array: Array) -> Any:
    """An output as coremltools hands it out."""
    if feature.image:
        pixels = _mil.as_image(feature, array)
        if pixels.dtype == np.float16:
            return Image.fromarray(pixels.astype(np.float32))
        image = Image.fromarray(np.ascontiguousarray(pixels))
        return image.convert("RGBA") if pixels.ndim == 3 else image
    if array.dtype.names:
        return dict(zip(array["key"].tolist(), array["value"].tolist(), strict=True))
    if feature.dtype in ("string", "int64"):
        return array.item()
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    return array.reshape(1) if array.ndim == 0 else array
