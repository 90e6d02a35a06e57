"""Types that all modules share; imports the standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from slide_deploy.errors import UsageError

__all__ = [
    "BATCH",
    "HEIGHT",
    "WIDTH",
    "DynamicAxes",
    "Fidelity",
    "LayerLowering",
    "Loading",
    "Options",
    "Pixels",
    "Precision",
    "ProductKind",
    "SizeSteps",
    "TensorSpec",
    "Verdict",
    "dynamic_axes_of",
    "silent",
    "with_batch",
]

BATCH, HEIGHT, WIDTH = "batch", "height", "width"


class Precision(StrEnum):
    """Names of the built-in precision schemes; other schemes are given as strings."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    W8 = "w8"
    W8A16 = "w8a16"
    W8A8 = "w8a8"


class ProductKind(StrEnum):
    """Kinds of products: convolutions and matrix products."""

    CONVOLUTION = "convolutions"
    GROUPED = "grouped convolutions"  # among them the depthwise ones
    LINEAR = "linear layers"
    ACTIVATIONS = "products of activations"


class Fidelity(StrEnum):
    """What computed the outputs: the vendor's runtime, the vendor's simulator of a device, or
    slide-deploy's interpreter."""

    NATIVE = "native"
    SIMULATED = "simulated"
    INTERPRETED = "interpreted"


class Verdict(StrEnum):
    """Outcome of a check. An artifact that did not run is `NOT_RUN`, never `PASS`."""

    PASS = "pass"
    FAIL = "fail"
    NOT_RUN = "not_run"


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype of an input or output; a free dimension is a string ("batch").

    `value_range` are the smallest and largest value that an integer input takes, where known.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"
    value_range: tuple[int, int] | None = None

    @property
    def is_picture(self) -> bool:
        """Whether it is pixels, uint8 (batch, height, width, 3)."""
        return self.dtype == "uint8" and len(self.shape) == 4 and self.shape[-1] == 3


@dataclass(frozen=True)
class Pixels:
    """The way from the pixels of a picture to a model's input: (pixel − offset) × factor in each
    channel, in RGB; `reverses` then gives BGR, `channels_last` is the layout of the input."""

    offset: tuple[float, ...]
    factor: tuple[float, ...]
    reverses: bool
    channels_last: bool


def with_batch(spec: TensorSpec, batch: int | str) -> TensorSpec:
    """The same tensor with another leading dimension."""
    return replace(spec, shape=(batch, *spec.shape[1:]))


@dataclass(frozen=True)
class DynamicAxes:
    """The batch size of an artifact, or "batch" if it is free, and whether its size is free."""

    batch: int | str = 1
    any_size: bool = False


@dataclass(frozen=True)
class SizeSteps:
    """Values of a free dimension: multiples of `step`, at least two; one to trace with."""

    example: int
    step: int


def dynamic_axes_of(inputs: tuple[TensorSpec, ...]) -> DynamicAxes:
    """The dynamic axes of these inputs; the batch is 0 if no input has one."""
    batch = inputs[0].shape[0] if inputs and inputs[0].shape else 0
    any_size = any(isinstance(size, str) for spec in inputs for size in spec.shape[1:])
    return DynamicAxes(batch, any_size)


@dataclass(frozen=True)
class LayerLowering:
    """The lowering of one attention, and the reason for its selection."""

    layer: str
    form: str
    why: str


@dataclass(frozen=True)
class Loading:
    """How a model was read from its file: the arguments of `load`, or of `load_foreign` where there
    is a `factory`, which `inputs` belong to."""

    weights: str | None = None
    image_size: tuple[int, int] | None = None
    features: bool = False
    prefix: str | None = None
    key: str | None = None
    factory: str = ""
    inputs: tuple[TensorSpec, ...] = ()


# What float32 has at best, in dB.
HIGHEST_SNR = 120


@dataclass(frozen=True)
class Options:
    """Options of an export.

    `precision` is the name or an alias of a precision scheme (`float16`, `fp16`, `half`).
    `batch` is the fixed batch size, at least 1; `dynamic` leaves it free, `dynamic_size` leaves
    height and width free. `lowering` is `auto`, `low-memory` or the name of a lowering.
    `calibration` is the calibration set of precisions that need one, as in `--calibration`.
    `min_snr` is the signal-to-noise ratio in dB that a quantized artifact must have on it, for
    which as few parts as possible stay in float; None quantizes all of them. `smooth` is the
    strength of SmoothQuant, between 0 (off) and 1; None leaves it to the search for `min_snr` or
    `max_drop`, without which it is off. `data` are labelled images, as in `--data`, on which the
    top-1 accuracy of each artifact is measured; `max_drop` is how many points of it a quantized
    artifact may lose, for which parts stay in float as for `min_snr`. `opset` (ONNX) and
    `deployment_target` (Core ML) are options of single targets; `target_options` holds
    those of other targets by name. `lowered` has, by target, the lowering of each attention in an
    earlier export, which is used again in place of `lowering`. `profile` names the profile whose
    vendor's tools take the artifact next. Raises UsageError for an invalid value.
    """

    precision: str = Precision.FLOAT32
    batch: int = 1
    dynamic: bool = False
    dynamic_size: bool = False
    lowering: str = "auto"
    calibration: str | Path | None = None
    min_snr: float | None = None
    smooth: float | None = None
    data: str | Path | None = None
    max_drop: float | None = None
    opset: int | None = None
    deployment_target: str | None = None
    target_options: Mapping[str, object] = field(default_factory=dict, hash=False)
    lowered: Mapping[str, tuple[LayerLowering, ...]] = field(default_factory=dict, hash=False)
    profile: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "lowering", str(self.lowering).lower().replace("_", "-"))
        if isinstance(self.batch, bool) or not isinstance(self.batch, int) or self.batch < 1:
            raise UsageError(f"batch expects an integer of at least 1; got {self.batch!r}", "use 1")
        if self.min_snr is not None and not 0 < self.min_snr <= HIGHEST_SNR:
            raise UsageError(
                f"a signal-to-noise ratio of {self.min_snr:g} dB cannot be searched for",
                f"ask for more than 0 and at most {HIGHEST_SNR} dB, such as 40",
            )
        if self.smooth is not None and not 0 <= self.smooth < 1:
            raise UsageError(
                f"SmoothQuant has no strength of {self.smooth:g}",
                "use a number above 0 and below 1, such as 0.5, or 0 to leave it out",
            )
        if self.max_drop is not None and (self.data is None or not 0 <= self.max_drop <= 100):
            raise UsageError(
                f"an accuracy may lose 0 to 100 points of labelled images; got {self.max_drop:g}",
                "pass labelled images, and a limit such as 0.5",
            )
        if self.dynamic and self.batch != 1:
            raise UsageError(
                f"a fixed batch of {self.batch} and a dynamic batch contradict each other",
                "use one of --batch and --dynamic",
            )

    @property
    def dynamic_axes(self) -> DynamicAxes:
        """The dynamic axes of an artifact with these options."""
        return DynamicAxes(BATCH if self.dynamic else self.batch, self.dynamic_size)

    @property
    def searches(self) -> bool:
        """Whether settings and parts in float are searched for."""
        return self.min_snr is not None or self.max_drop is not None

    @property
    def of_targets(self) -> dict[str, object]:
        """The given options of single targets, by name."""
        named = {"opset": self.opset, "deployment_target": self.deployment_target}
        return {name: v for name, v in named.items() if v is not None} | dict(self.target_options)

    def with_target_options(self, values: Mapping[str, object]) -> Options:
        """A copy with `values` as its only options of single targets."""
        named = {name: values.get(name) for name in ("opset", "deployment_target")}
        others = {name: value for name, value in values.items() if name not in named}
        return replace(self, **named, target_options=others)  # type: ignore[arg-type]  # by name


def silent(step: str) -> None:
    """The default of `progress` arguments: prints nothing."""
