"""Probes: the inputs on which artifacts are compared, each for a certain kind of error."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from slide_deploy.types import TensorSpec

__all__ = [
    "PERTURBATION",
    "PIXELS",
    "Probe",
    "image_probes",
    "is_sample",
    "make_probe",
    "make_probes",
    "natural_image",
    "sample_name",
    "source",
]

Generator = np.random.Generator

# So many perturbed copies of the first probes that their common error tells a mistake of the size
# of the noise from the noise (docs/mutation.md). The step moves values by several roundings of
# float16, and is small enough to change nothing else.
PERTURBED = 2
PERTURBED_COPIES = 4
PERTURBATION = 2.0**-6
COPY = " perturbed copy "
SAMPLE = "sample "
CONTRAST = 57.0  # levels for one standard deviation of ImageNet's
PIXELS = "pixels"
OLD_COPY = " echo "  # the name of perturbed copies in golden vectors of earlier versions


@dataclass(frozen=True)
class Probe:
    """Named inputs of one run, and their purpose."""

    name: str
    why: str
    inputs: dict[str, np.ndarray]


def _impulses(shape: tuple[int, ...], rng: Generator) -> np.ndarray:
    """Single bright pixels in the corners, on the borders and in the middle."""
    image = np.zeros(shape)
    height, width = shape[-2:]
    for row in (0, height // 2, height - 1):
        for column in (0, width // 2, width - 1):
            image[..., row, column] = 3 * rng.standard_normal(shape[:-2])
    return image


def _ramps(shape: tuple[int, ...], rng: Generator) -> np.ndarray:
    """A linear slope along each axis, with a different gradient for each."""
    image = np.full(shape, -1.5)
    for axis, steepness in enumerate((0.3, 0.7, 3.0, 1.6)):
        along = [1] * len(shape)
        along[axis] = shape[axis]
        image += steepness * np.linspace(0, 1, shape[axis]).reshape(along)
    return image


def natural_image(shape: tuple[int, ...], rng: Generator) -> np.ndarray:
    """Noise with the 1/f spectrum of photographs, at unit variance."""
    noise = rng.standard_normal(shape)
    rows, columns = np.fft.fftfreq(shape[-2])[:, None], np.fft.rfftfreq(shape[-1])[None, :]
    frequency = np.maximum(np.hypot(rows, columns), 1 / max(shape[-2:]))
    image = np.fft.irfft2(np.fft.rfft2(noise) / frequency, s=shape[-2:])
    return np.asarray(image / max(image.std(), 1e-12))


def _patchwork(shape: tuple[int, ...], rng: Generator) -> np.ndarray:
    """A quarter each of zeros, one colour, uniform noise and a photograph's spectrum."""
    image = np.zeros(shape)
    middle, centre = shape[-2] // 2, shape[-1] // 2
    image[..., :middle, centre:] = 0.7
    image[..., middle:, :centre] = rng.uniform(0, 1, shape)[..., middle:, :centre]
    image[..., middle:, centre:] = natural_image(shape, rng)[..., middle:, centre:]
    return image


_Maker = Callable[[tuple[int, ...], Generator], np.ndarray]
_PROBES: tuple[tuple[str, str, _Maker], ...] = (
    ("normal", "wrong weights", lambda shape, rng: rng.standard_normal(shape)),
    (
        "patchwork",
        "wrong biases (zeros), wrong borders (one colour), values of one sign, a natural spectrum",
        _patchwork,
    ),
    ("impulses", "wrong padding and shifts at corners, borders and in the middle", _impulses),
    ("ramps", "swapped or flipped axes", _ramps),
    ("large", "overflow in float16", lambda shape, rng: 30 * rng.standard_normal(shape)),
    ("tiny", "underflow in float16", lambda shape, rng: 1e-3 * rng.standard_normal(shape)),
    (
        PIXELS,
        "clipping: raw pixels, not normalised",
        lambda shape, rng: rng.integers(0, 256, shape),
    ),
)


def make_probes(inputs: tuple[TensorSpec, ...], seed: int = 0) -> tuple[Probe, ...]:
    """Seeded probes for inputs of fixed shapes; images are those of rank 4, and integers take
    the ends of their range and as many values in between as fit (0 and 1 where none is known).

    The same specs and seed give identical probes on every machine.
    """
    probes = [make_probe(index, inputs, seed) for index in range(len(_PROBES))]
    rng = np.random.default_rng((seed, len(probes)))
    copies = (copy for probe in probes[:PERTURBED] for copy in _perturbed_copies(probe, rng))
    return (*probes, *copies)


def make_probe(index: int, inputs: tuple[TensorSpec, ...], seed: int) -> Probe:
    """One of them, by its place."""
    name, why, maker = _PROBES[index]
    rng = np.random.default_rng((seed, index))
    arrays = {}
    for spec in inputs:
        shape = tuple(int(size) for size in spec.shape)
        if spec.is_picture:
            planes = maker((shape[0], shape[3], *shape[1:3]), rng)
            values = np.moveaxis(planes if name == PIXELS else _levels(planes), 1, -1)
        elif spec.dtype != "float32":
            values = _integers(spec.value_range or (0, 1), shape, seed, index)
        else:
            values = maker(shape, rng) if len(shape) == 4 else rng.standard_normal(shape)
        arrays[spec.name] = values.astype(spec.dtype)
    return Probe(name, why, arrays)


def _levels(values: np.ndarray) -> np.ndarray:
    """Pixels of pictures, where a normalised image has `values`: grey is zero."""
    levels: np.ndarray = np.clip(np.rint(128 + CONTRAST * values), 0, 255)
    return levels


def _integers(ends: tuple[int, int], shape: tuple[int, ...], seed: int, index: int) -> np.ndarray:
    """Both ends and values in between, each once as far as they fit into all probes together;
    this is what one probe has of them."""
    (low, high), count = ends, math.prod(shape)
    inner = max(high - low - 1, 0)
    drawn = np.random.default_rng((seed, count)).choice(
        inner, min(inner, count * len(_PROBES)), replace=False
    )
    values = np.concatenate([np.unique([low, high]), low + 1 + drawn])
    part = np.resize(np.roll(values, -index * count), count)
    return np.random.default_rng((seed, index)).permutation(part).reshape(shape)


def source(name: str) -> str:
    """The name of the probe that a perturbed copy was made from; otherwise the name itself."""
    return name.partition(COPY)[0].partition(OLD_COPY)[0]


def sample_name(number: int) -> str:
    """The name of the run of a calibration set with this number."""
    return f"{SAMPLE}{number}"


def is_sample(name: str) -> bool:
    """Whether a probe is a run of a calibration set."""
    return name.startswith(SAMPLE)


def _perturbed_copies(probe: Probe, rng: Generator) -> Iterator[Probe]:
    # Other integers than pixels cannot be perturbed, and equal inputs would be rounded equally.
    if not any(value.dtype in (np.float32, np.uint8) for value in probe.inputs.values()):
        return
    for number in range(1, PERTURBED_COPIES + 1):
        inputs = {name: _perturbed(value, rng) for name, value in probe.inputs.items()}
        why = f"systematic error, on {probe.name} slightly perturbed"
        yield Probe(f"{probe.name}{COPY}{number}", why, inputs)


def _perturbed(value: np.ndarray, rng: Generator) -> np.ndarray:
    if value.dtype == np.uint8:
        moved = value.astype(np.int16) + rng.integers(-1, 2, value.shape, np.int16)
        pixels: np.ndarray = np.clip(moved, 0, 255).astype(np.uint8)
        return pixels
    if value.dtype != np.float32:
        return value
    return (value * (1 + PERTURBATION * rng.standard_normal(value.shape))).astype(np.float32)


def image_probes(
    inputs: tuple[TensorSpec, ...], images: Sequence[np.ndarray], batch: int
) -> tuple[Probe, ...]:
    """The user's own images, as the artifact takes them, as probes, each repeated to fill the
    batch."""
    return tuple(
        Probe(
            f"image {number}",
            "the user's own image",
            {inputs[0].name: np.repeat(image[None].astype(inputs[0].dtype), batch, axis=0)},
        )
        for number, image in enumerate(images, 1)
    )
