"""The cache of searches returns entries for equal conditions only, and ignores damaged files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from slide_deploy.artifacts import search_cache
from slide_deploy.artifacts.manifest import Artifact
from slide_deploy.artifacts.search_cache import load_search, save_search, search_file
from slide_deploy.quantization.calibration import CalibrationSet
from slide_deploy.quantization.search import Search, Trial
from slide_deploy.types import Options

PROGRAM = Artifact("onnx", "a.onnx", "float32", "0" * 64, 1, (), ())
SET = CalibrationSet({"image": np.zeros((1, 3, 4, 4), np.float32)}, "1" * 64, "real.npy", False)
CHOICES = {"smooth": ("0.5",)}
OPTIONS = Options(precision="w8a8", min_snr=30.0)
FOUND = Search(30.0, ("a", "b"), ("a",), 31.5, (Trial((), 20.0), Trial(("a",), 31.5)))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_cache.platformdirs, "user_cache_dir", lambda _: str(tmp_path))


def test_a_search_is_found_again() -> None:
    path = search_file(PROGRAM, SET, ["a", "b"], CHOICES, OPTIONS)
    assert load_search(path) is None
    save_search(path, FOUND)
    assert load_search(search_file(PROGRAM, SET, ["a", "b"], CHOICES, OPTIONS)) == FOUND


@pytest.mark.parametrize(
    "other",
    [
        (replace(PROGRAM, sha256="2" * 64), SET, ["a", "b"], CHOICES, OPTIONS),
        (PROGRAM, replace(SET, sha256="2" * 64), ["a", "b"], CHOICES, OPTIONS),
        (PROGRAM, SET, ["a"], CHOICES, OPTIONS),
        (PROGRAM, SET, ["a", "b"], CHOICES, replace(OPTIONS, min_snr=31.0)),
        (PROGRAM, SET, ["a", "b"], CHOICES, replace(OPTIONS, precision="w8a16")),
        (PROGRAM, SET, ["a", "b"], {}, OPTIONS),
        (PROGRAM, SET, ["a", "b"], CHOICES, replace(OPTIONS, data="images", max_drop=1.0)),
        (PROGRAM, SET, ["a", "b"], CHOICES, OPTIONS, "3" * 64),
    ],
    ids=[
        *("model", "calibration set", "parts", "ratio", "precision", "settings"),
        *("drop", "labelled images"),
    ],
)
def test_other_conditions_have_other_files(other) -> None:
    assert search_file(*other) != search_file(PROGRAM, SET, ["a", "b"], CHOICES, OPTIONS)


def test_a_damaged_file_is_ignored() -> None:
    path = search_file(PROGRAM, SET, ["a", "b"], CHOICES, OPTIONS)
    save_search(path, FOUND)
    path.write_text(path.read_text()[:40])
    assert load_search(path) is None
