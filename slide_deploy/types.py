"""Frozen values that travel between the rooms; no library but the standard one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

__all__ = [
    "BATCH",
    "HEIGHT",
    "WIDTH",
    "DynamicAxes",
    "Fidelity",
    "LayerLowering",
    "Options",
    "Precision",
    "SizeSteps",
    "TensorSpec",
    "Verdict",
    "dynamic_axes_of",
    "with_batch",
]

BATCH, HEIGHT, WIDTH = "batch", "height", "width"


class Precision(StrEnum):
    """Names of the built-in precision schemes; any scheme's name may stand in their place."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"


class Fidelity(StrEnum):
    """How far a verdict reaches: the vendor's runtime, or our reading of its documentation."""

    NATIVE = "native"
    INTERPRETED = "interpreted"


class Verdict(StrEnum):
    """Outcome of a check. What did not run is `NOT_RUN`, never `PASS`."""

    PASS = "pass"
    FAIL = "fail"
    NOT_RUN = "not_run"


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype of an input or output; a free dimension is a string ("batch")."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"


def with_batch(spec: TensorSpec, batch: int | str) -> TensorSpec:
    """The same tensor with another leading dimension."""
    return replace(spec, shape=(batch, *spec.shape[1:]))


@dataclass(frozen=True)
class DynamicAxes:
    """What an artifact takes: so large a batch, or any ("batch"), and of one size or any."""

    batch: int | str = 1
    any_size: bool = False


@dataclass(frozen=True)
class SizeSteps:
    """Values of a free dimension: multiples of `step`, at least two; one to trace with."""

    example: int
    step: int


def dynamic_axes_of(inputs: tuple[TensorSpec, ...]) -> DynamicAxes:
    """What an artifact of these inputs takes; the batch is 0 where no input has one."""
    batch = inputs[0].shape[0] if inputs and inputs[0].shape else 0
    any_size = any(isinstance(size, str) for spec in inputs for size in spec.shape[1:])
    return DynamicAxes(batch, any_size)


@dataclass(frozen=True)
class LayerLowering:
    """Which of the equal forms one attention was exported in, and why that one."""

    layer: str
    form: str
    why: str


@dataclass(frozen=True)
class Options:
    """What a user may ask of an export, for every target alike."""

    precision: str = Precision.FLOAT32
    batch: int = 1
    dynamic: bool = False
    dynamic_size: bool = False
    lowering: str = "auto"
    opset: int | None = None
    deployment_target: str | None = None

    @property
    def extent(self) -> DynamicAxes:
        """What an artifact so exported takes."""
        return DynamicAxes(BATCH if self.dynamic else self.batch, self.dynamic_size)
