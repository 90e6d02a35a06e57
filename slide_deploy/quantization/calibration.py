"""Reads and checks calibration sets, on which a quantizer measures the ranges of activations."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slide_deploy.errors import UsageError
from slide_deploy.packaging.images import read_images
from slide_deploy.packaging.preprocessing import Layout, Preprocessing, normalise
from slide_deploy.parity.probes import natural_image
from slide_deploy.types import TensorSpec

__all__ = ["SYNTHETIC", "CalibrationSet", "load_calibration"]

SYNTHETIC = "synthetic"
LEAST = 32  # PTQ4ViT (Yuan et al. 2022): 32 images give Swin-T 81.25 % top-1, 128 give 81.27 %

# Median over the images of |correlation of neighbouring pixels|. Measured: photographs 0.7 to
# 0.98, 8×8 digits 0.54, images of a photograph's spectrum 0.4 to 0.8; white noise 0.1 and less,
# 0.16 as pictures of 1000 pixels resized to 224, 0.27 as pictures of 224 pixels. Noise pictures
# much smaller than the model's input, which resizing smooths, are not found.
NOISE_CORRELATION = 0.3


@dataclass(frozen=True)
class CalibrationSet:
    """Inputs of the model by name, each (N, …); `sha256` is that of their content.

    `source` is their origin; `synthetic` sets contain no data of the user.
    """

    arrays: Mapping[str, np.ndarray]
    sha256: str
    source: str
    synthetic: bool

    @property
    def count(self) -> int:
        return len(next(iter(self.arrays.values())))

    def runs(self, batch: int | str) -> tuple[dict[str, np.ndarray], ...]:
        """The inputs of each run of a model of this batch size; one sample each if it is free.

        The first samples fill the last batch.
        """
        size = batch if isinstance(batch, int) else 1
        order = np.arange(-(-self.count // size) * size) % self.count
        return tuple(
            {name: array[order[start : start + size]] for name, array in self.arrays.items()}
            for start in range(0, len(order), size)
        )


def load_calibration(
    source: Path | str,
    inputs: tuple[TensorSpec, ...],
    preprocessing: Preprocessing | None = None,
    *,
    least: int = LEAST,
) -> CalibrationSet:
    """Read a calibration set for a model of `inputs`, whose first dimension is the batch.

    `source` is a folder of images, read as `read_images` does; a `.npy` file of (N, …) for a
    model of one input; a `.npz` file with such an array for each input by its name; or the word
    `synthetic`: `least` seeded images with a photograph's spectrum. Raises UsageError if it is
    missing, does not match the model, has fewer than `least` different samples that are not
    constant, or is noise (see NOISE_CORRELATION), since its ranges would differ from real ones.
    """
    path = Path(source)
    if str(source) == SYNTHETIC:
        arrays = _synthetic(inputs, preprocessing, least)
    elif path.is_dir():
        arrays = {inputs[0].name: _folder(path, inputs, preprocessing)}
    elif path.suffix.lower() in (".npy", ".npz"):
        arrays = _file(path, inputs)
    else:
        reason = "is not a .npy or .npz file" if path.exists() else "does not exist"
        raise UsageError(
            f"calibration set {source} {reason}",
            f"pass a folder of images, a .npy or .npz file, or the word {SYNTHETIC}",
        )
    for spec in inputs:
        _check_array(source, spec, arrays[spec.name])
    seen = {spec.name: _channels_first(spec, arrays[spec.name], preprocessing) for spec in inputs}
    _check_samples(source, seen, least)
    for spec in filter(_is_image, inputs):
        _refuse_noise(source, spec.name, seen[spec.name])
    name = path.name or str(path)
    return CalibrationSet(arrays, _digest(arrays), name, synthetic=str(source) == SYNTHETIC)


def _synthetic(
    inputs: tuple[TensorSpec, ...], preprocessing: Preprocessing | None, count: int
) -> dict[str, np.ndarray]:
    """Seeded images with ImageNet's mean contrast, after the preprocessing."""
    spec = inputs[0]
    if len(inputs) != 1 or not _is_image(spec):
        raise UsageError(
            "synthetic calibration needs a model with one image input",
            "pass a .npz file of real inputs",
        )
    rng, shape = np.random.default_rng(0), _sample_shape(spec)
    if preprocessing is None and not spec.is_picture:
        return {spec.name: np.stack([natural_image(shape, rng) for _ in range(count)], dtype="f4")}
    size = shape[:2] if _channels_last(spec, preprocessing) else shape[1:]
    pictures = np.stack([natural_image((3, *size), rng) for _ in range(count)])
    pixels = np.moveaxis(np.clip(127.5 + 58 * pictures, 0, 255).astype(np.uint8), 1, -1)
    if preprocessing is None or spec.is_picture:
        return {spec.name: np.ascontiguousarray(pixels)}
    return {spec.name: normalise(preprocessing, pixels, np.float32)}


def _folder(
    path: Path, inputs: tuple[TensorSpec, ...], preprocessing: Preprocessing | None
) -> np.ndarray:
    if len(inputs) != 1 or not _is_image(inputs[0]):
        raise UsageError(
            f"calibration set {path} is a folder of images, but the model has other inputs",
            "pass a .npz file with an array for each input by its name",
        )
    return np.stack(read_images(path, inputs[0], preprocessing))


def _file(path: Path, inputs: tuple[TensorSpec, ...]) -> dict[str, np.ndarray]:
    names = {spec.name for spec in inputs}
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                content = {inputs[0].name: content}
            found = dict(content.items())
    except Exception as error:  # zip, zlib, struct and numpy errors
        raise UsageError(
            f"calibration set {path} cannot be read ({type(error).__name__})",
            "check the path; save it with numpy.save or numpy.savez, without objects",
        ) from error
    if found.keys() != names:
        raise UsageError(
            f"calibration set {path} has {_listed(found)}, but the model has {_listed(names)}",
            "save one array for each input under its name with numpy.savez",
        )
    return found | {spec.name: _converted(path, spec, found[spec.name]) for spec in inputs}


def _converted(path: Path, spec: TensorSpec, array: np.ndarray) -> np.ndarray:
    wanted = np.dtype(spec.dtype)
    kinds = "f" if wanted.kind == "f" else "iu"
    if array.dtype.kind not in kinds:
        raise UsageError(
            f"calibration set {path}: {spec.name} is {array.dtype}, but the input is {spec.dtype}",
            "save the inputs of the model: images normalised as in training, not pixels",
        )
    with np.errstate(over="ignore"):  # infinite values are refused later
        return array.astype(wanted)


def _check_array(source: Path | str, spec: TensorSpec, array: np.ndarray) -> None:
    wanted = _sample_shape(spec)
    if array.shape[1:] != wanted or not array.shape:
        raise UsageError(
            f"calibration set {source}: {spec.name} is {array.shape}, expected (N, "
            f"{', '.join(map(str, wanted))})",
            "save samples of the model's input shape, stacked along the first axis",
        )
    if not np.isfinite(array).all():
        raise UsageError(
            f"calibration set {source}: {spec.name} has NaN or infinite values",
            "remove these samples",
        )


def _check_samples(source: Path | str, arrays: Mapping[str, np.ndarray], least: int) -> None:
    """Raise UsageError unless `least` samples are different and not constant."""
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise UsageError(
            f"calibration set {source} has different numbers of samples: {told}",
            "save the same number of samples for each input",
        )
    count = next(iter(counts.values()))
    varied = [n for n in range(count) if not all(_is_constant(a[n]) for a in arrays.values())]
    if count and not varied:
        raise UsageError(
            f"calibration set {source} is constant: each sample has only one value",
            "pass real inputs of the model",
        )
    distinct = {_digest({name: array[n] for name, array in arrays.items()}) for n in varied}
    if len(distinct) < least:
        repeated = "" if len(distinct) == count else f" of {count} that differ and are not constant"
        raise UsageError(
            f"calibration set {source} has {len(distinct)} samples{repeated}, but at least {least} "
            "are needed",
            f"pass at least {least} different real inputs of the model",
        )


def _is_constant(sample: np.ndarray) -> bool:
    """Whether the sample, or each channel of an image, has only one value."""
    flat = sample.reshape(len(sample), -1) if sample.ndim == 3 else sample.reshape(1, -1)
    return bool((flat.max(1) == flat.min(1)).all())


def _channels_first(
    spec: TensorSpec, array: np.ndarray, preprocessing: Preprocessing | None
) -> np.ndarray:
    last = _channels_last(spec, preprocessing)
    return np.moveaxis(array, -1, 1) if last and _is_image(spec) else array


def _channels_last(spec: TensorSpec, preprocessing: Preprocessing | None) -> bool:
    nhwc = preprocessing is not None and preprocessing.layout is Layout.NHWC
    return spec.is_picture or nhwc


def _refuse_noise(source: Path | str, name: str, images: np.ndarray) -> None:
    typical = float(np.median([abs(_correlation(image)) for image in images]))
    if typical < NOISE_CORRELATION:
        raise UsageError(
            f"calibration set {source} is noise: neighbouring pixels of {name} correlate by "
            f"{typical:.2f}, those of photographs by 0.7 to 1",
            f"pass real inputs of the model, or the word {SYNTHETIC}",
        )


def _correlation(image: np.ndarray) -> float:
    """Lag-1 autocorrelation of (C, H, W) along both axes, channels around their own means."""
    centred = image - image.mean((-2, -1), keepdims=True, dtype=np.float64)
    power = float(np.mean(centred**2))
    if power == 0:
        return 1.0  # a constant image is not noise
    along = [
        float(np.mean(a * b))
        for a, b in (
            (centred[..., 1:], centred[..., :-1]),
            (centred[..., 1:, :], centred[..., :-1, :]),
        )
        if a.size
    ]
    return sum(along) / len(along) / power if along else 1.0


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over each input's name, dtype, shape and values, in the order of names."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
        digest.update(f"{name}\0{array.dtype.name}\0{array.shape}\n".encode())
        digest.update(little.tobytes())
    return digest.hexdigest()


def _is_image(spec: TensorSpec) -> bool:
    return spec.is_picture or (len(spec.shape) == 4 and spec.dtype == "float32")


def _sample_shape(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(int(size) for size in spec.shape[1:])


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
