"""Labelled images: a folder per class, a CSV file, or arrays."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slide_deploy.errors import MissingLibrary, UsageError
from slide_deploy.packaging.images import PICTURES, read_image
from slide_deploy.packaging.preprocessing import Preprocessing
from slide_deploy.types import TensorSpec
from slide_deploy.utils.hashing import sha256_of

__all__ = ["DIGITS", "Dataset", "read_dataset"]

DIGITS = "digits"
HOW = "pass a folder with a folder of images per class, a CSV file of path,label, or a .npz file"

# Of scikit-learn's digits in examples/digits: pixels are counts of 0 to 16, normalised by these.
LARGEST, MEAN, STD, SIDE = 16.0, 0.305, 0.376, 32


@dataclass(frozen=True)
class Dataset:
    """`count` images with `labels` (N,), the numbers of their classes; `image(n)` reads one as the
    model's input. `sha256` is of names and times of the files, or of the content of arrays."""

    name: str
    labels: np.ndarray
    classes: tuple[str, ...]
    image: Callable[[int], np.ndarray]
    sha256: str

    @property
    def count(self) -> int:
        return len(self.labels)


def read_dataset(
    source: Path | str,
    spec: TensorSpec,
    preprocessing: Preprocessing | None = None,
    classes: Sequence[str] | None = None,
) -> Dataset:
    """Read labelled images for the input `spec` of a model.

    `source` is a folder with one folder of pictures or .npy arrays per class; a CSV file with a
    header `path,label`, paths relative to it; a .npz file with `images` (N, …) and `labels` (N,);
    or the word `digits`: scikit-learn's digits that examples/digits does not train on. `classes`
    are the names of the model's classes in order; without them, numbers are class numbers, and
    other names are taken in alphabetical order. Raises UsageError if there is nothing to read, or a
    label is not a class, MissingLibrary for `digits` without scikit-learn.
    """
    path = Path(source)
    if str(source) == DIGITS:
        return _of_arrays(DIGITS, *_digits(), spec, hashlib.sha256(b"digits").hexdigest())
    if path.is_dir():
        return _of_files(path, _in_folders(path), spec, preprocessing, classes)
    if path.suffix.lower() == ".csv" and path.is_file():
        return _of_files(path, _in_csv(path), spec, preprocessing, classes)
    if path.suffix.lower() == ".npz" and path.is_file():
        return _of_arrays(path.name, *_in_arrays(path), spec, sha256_of(path))
    reason = "is not labelled images" if path.exists() else "does not exist"
    raise UsageError(f"data {source} {reason}", HOW)


def _in_folders(folder: Path) -> list[tuple[Path, str]]:
    return [
        (path, place.name)
        for place in sorted(p for p in folder.iterdir() if p.is_dir())
        for path in sorted(place.iterdir())
        if path.suffix.lower() in (".npy", *PICTURES)
    ]


def _in_csv(path: Path) -> list[tuple[Path, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
            return [(path.parent / row["path"], row["label"].strip()) for row in rows]
    except (KeyError, AttributeError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(
            f"{path} has no columns path and label", "begin it with the line path,label"
        ) from error


def _in_arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return archive["images"], archive["labels"]
    except Exception as error:  # zip, zlib, struct and numpy errors
        raise UsageError(
            f"{path} has no arrays images and labels ({type(error).__name__})",
            "save it with numpy.savez(path, images=…, labels=…)",
        ) from error


def _of_files(
    source: Path,
    found: list[tuple[Path, str]],
    spec: TensorSpec,
    preprocessing: Preprocessing | None,
    classes: Sequence[str] | None,
) -> Dataset:
    if not found:
        raise UsageError(f"data {source} has no images", HOW)
    if missing := [path for path, _ in found if not path.is_file()]:
        raise UsageError(f"data {source}: {missing[0]} is not a file", "check the paths")
    names = _class_names(source, [label for _, label in found], classes)
    digest = hashlib.sha256()
    for path, label in found:
        status = path.stat()
        digest.update(f"{path}\0{label}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    digest.update(repr((preprocessing, names)).encode())
    numbers = {name: number for number, name in enumerate(names)}
    return Dataset(
        name=source.name,
        labels=np.array([numbers[label] for _, label in found]),
        classes=names,
        image=lambda number: read_image(found[number][0], spec, preprocessing),
        sha256=digest.hexdigest(),
    )


def _class_names(
    source: Path, labels: Sequence[str], classes: Sequence[str] | None
) -> tuple[str, ...]:
    """The names of all classes, by number."""
    used = sorted(set(labels))
    if classes is not None:
        if unknown := [name for name in used if name not in classes]:
            raise UsageError(
                f"data {source}: {unknown[0]!r} is not one of the model's classes",
                "name the folders as the labels, or pass --labels with these names",
            )
        return tuple(classes)
    if all(name.isascii() and name.isdigit() for name in used):
        return tuple(map(str, range(max(map(int, used)) + 1)))
    return tuple(used)


def _of_arrays(
    name: str, images: np.ndarray, labels: np.ndarray, spec: TensorSpec, sha256: str
) -> Dataset:
    wanted = tuple(spec.shape[1:])
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or images.shape != (len(labels), *wanted):
        raise UsageError(
            f"data {name} has images {images.shape} and labels {labels.shape}, but the input is "
            f"{wanted}",
            "save images as the model takes them, and one whole number per image",
        )
    if not len(labels) or labels.min() < 0:
        raise UsageError(f"data {name} has no images, or negative labels", HOW)
    classes = tuple(map(str, range(int(labels.max()) + 1)))
    return Dataset(name, labels, classes, lambda number: images[number].astype(spec.dtype), sha256)


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """The 450 held-out images (N, 3, 32, 32) and labels of examples/digits."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError:
        raise MissingLibrary("reading the digits", ("scikit-learn",), "dev") from None
    digits = load_digits()
    _, chosen = train_test_split(
        np.arange(len(digits.target)), test_size=0.25, random_state=0, stratify=digits.target
    )
    pixels = _enlarged(digits.images[chosen] / LARGEST)
    images = ((pixels - MEAN) / STD).astype(np.float32)
    return np.repeat(images[:, None], 3, axis=1), digits.target[chosen]


def _enlarged(images: np.ndarray) -> np.ndarray:
    """(N, 8, 8) → (N, 32, 32), bilinear with pixels as areas, as torch's interpolate."""
    side = images.shape[-1]
    places = np.clip((np.arange(SIDE) + 0.5) * side / SIDE - 0.5, 0, side - 1)
    low = np.minimum(places.astype(int), side - 2)
    weights = np.zeros((SIDE, side))
    weights[np.arange(SIDE), low] = 1 - (places - low)
    weights[np.arange(SIDE), low + 1] = places - low
    return np.asarray(weights @ images @ weights.T)
