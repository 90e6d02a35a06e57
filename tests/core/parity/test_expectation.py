"""Golden vectors on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slide_deploy.errors import ArtifactError
from slide_deploy.parity.expectation import (
    Expectation,
    Noise,
    load_expectations,
    save_expectations,
)

KNOWN = (
    Expectation(
        "normal",
        "every weight",
        {"image": np.ones((1, 3, 2, 2), np.float32)},
        {"logits": np.array([[0.1, 0.2]])},
        {"logits": Noise(1e-7, 4e-8)},
    ),
    Expectation(
        "ramps, batch of 3",
        "axes",
        {"image": np.zeros((3, 3, 2, 2), np.float32)},
        {"logits": np.array([[np.pi, 0.2]] * 3)},
        {"logits": Noise(1e-7, 4e-8, 1e-3, 61.5)},
    ),
)


def test_golden_vectors_come_back_as_they_went(tmp_path: Path) -> None:
    save_expectations(KNOWN, tmp_path / "golden.npz")
    found = load_expectations(tmp_path / "golden.npz")
    for one, known in zip(found, KNOWN, strict=True):
        assert (one.probe, one.why, one.noise) == (known.probe, known.why, known.noise)
        for mine, other in ((one.inputs, known.inputs), (one.references, known.references)):
            assert mine.keys() == other.keys()
            for name in mine:
                assert mine[name].dtype == other[name].dtype
                assert np.array_equal(mine[name], other[name])


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"PK\x05\x06" + b"\0" * 18])
def test_what_are_no_golden_vectors_is_an_artifact_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "golden.npz").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"golden\.npz"):
        load_expectations(tmp_path / "golden.npz")


# numpy leaves a file open that turns out to be no archive
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_golden_vectors_cut_short_are_an_artifact_error(tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    save_expectations(KNOWN, path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ArtifactError):
        load_expectations(path)


def test_golden_vectors_hold_no_pickles(tmp_path: Path) -> None:
    np.savez(tmp_path / "golden.npz", **{"0/about": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(ArtifactError):
        load_expectations(tmp_path / "golden.npz")
