"""Labelled images of every kind, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from slide_deploy.errors import UsageError
from slide_deploy.evaluation import dataset
from slide_deploy.evaluation.dataset import read_dataset
from slide_deploy.types import TensorSpec

SPEC = TensorSpec("image", (1, 3, 4, 4))


def save(path: Path, value: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.full((3, 4, 4), value, np.float32))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for value, name in enumerate(("cat/a.npy", "cat/b.npy", "dog/c.npy")):
        save(tmp_path / "images" / name, value)
    return tmp_path / "images"


def test_a_folder_per_class(folder: Path) -> None:
    data = read_dataset(folder, SPEC)
    assert (data.name, data.count, data.classes) == ("images", 3, ("cat", "dog"))
    assert data.labels.tolist() == [0, 0, 1]
    assert [float(data.image(n).mean()) for n in range(3)] == [0, 1, 2]


def test_the_model_s_classes_give_the_numbers(folder: Path) -> None:
    data = read_dataset(folder, SPEC, classes=("dog", "bird", "cat"))
    assert data.labels.tolist() == [2, 2, 0]
    with pytest.raises(UsageError, match="'cat' is not one of the model's classes"):
        read_dataset(folder, SPEC, classes=("dog", "bird"))


def test_folders_named_by_numbers_are_class_numbers(tmp_path: Path) -> None:
    save(tmp_path / "10" / "a.npy", 0)
    save(tmp_path / "9" / "b.npy", 0)
    data = read_dataset(tmp_path, SPEC)
    assert data.labels.tolist() == [10, 9]
    assert len(data.classes) == 11


def test_a_csv_file(folder: Path) -> None:
    table = folder / "labels.csv"
    table.write_text("path,label\ndog/c.npy,dog\ncat/a.npy,cat\n")
    assert read_dataset(table, SPEC).labels.tolist() == [1, 0]
    table.write_text("file,class\ndog/c.npy,dog\n")
    with pytest.raises(UsageError, match="no columns path and label"):
        read_dataset(table, SPEC)
    table.write_text("path,label\ndog/x.npy,dog\n")
    with pytest.raises(UsageError, match=r"x\.npy is not a file"):
        read_dataset(table, SPEC)


def test_arrays(tmp_path: Path) -> None:
    images = np.random.default_rng(0).standard_normal((2, 3, 4, 4))
    np.savez(tmp_path / "a.npz", images=images, labels=np.array([1, 0]))
    data = read_dataset(tmp_path / "a.npz", SPEC)
    assert data.labels.tolist() == [1, 0]
    assert data.image(1).dtype == np.float32
    np.testing.assert_allclose(data.image(1), images[1], rtol=1e-6)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"images": np.zeros((2, 3, 4, 4))}, "no arrays images and labels"),
        ({"images": np.zeros((2, 3, 5, 4)), "labels": np.zeros(2, int)}, "but the input is"),
        ({"images": np.zeros((2, 3, 4, 4)), "labels": np.zeros(3, int)}, "but the input is"),
        ({"images": np.zeros((2, 3, 4, 4)), "labels": np.zeros(2)}, "but the input is"),
        ({"images": np.zeros((1, 3, 4, 4)), "labels": np.array([-1])}, "negative labels"),
    ],
)
def test_unfit_arrays_are_refused(tmp_path: Path, arrays: dict, reason: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UsageError, match=reason):
        read_dataset(tmp_path / "a.npz", SPEC)


def test_nothing_to_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_dataset(tmp_path / "absent", SPEC)
    with pytest.raises(UsageError, match="has no images"):
        read_dataset(tmp_path, SPEC)


def test_changed_files_and_classes_have_another_digest(folder: Path) -> None:
    first = read_dataset(folder, SPEC).sha256
    assert read_dataset(folder, SPEC).sha256 == first
    assert read_dataset(folder, SPEC, classes=("dog", "cat")).sha256 != first
    save(folder / "dog" / "d.npy", 3)
    assert read_dataset(folder, SPEC).sha256 != first


def test_digits_are_enlarged_as_for_training() -> None:
    images = np.random.default_rng(0).uniform(0, 16, (2, 8, 8))
    found = dataset._enlarged(images)
    tensor = torch.from_numpy(images)[:, None]
    expected = F.interpolate(tensor, size=(32, 32), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(found, expected[:, 0].numpy(), atol=1e-12)
