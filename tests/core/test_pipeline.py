"""An export runs the model once for all targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import slide_deploy
from slide_deploy.artifacts import prepare


def test_free_sizes_are_found_once_for_all_targets(
    lone_module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finding them runs the model."""
    runs: list[str] = []
    find = prepare.dynamic_size_of

    def counted(model: Any) -> Any:
        runs.append(model.name)
        return find(model)

    monkeypatch.setattr(prepare, "dynamic_size_of", counted)
    model = slide_deploy.load(lone_module, image_size=(8, 8))
    options = slide_deploy.Options(dynamic_size=True)
    report = slide_deploy.export_and_verify(model, "jit,openvino", tmp_path / "out", options)
    assert [check.verdict for check in report.checks] == ["pass", "pass"], report.checks
    assert runs == ["lone"]


def test_no_target_is_a_usage_error(lone_module: Path, tmp_path: Path) -> None:
    model = slide_deploy.load(lone_module, image_size=(8, 8))
    with pytest.raises(slide_deploy.errors.UsageError, match="no target"):
        slide_deploy.export(model, [], tmp_path / "out")
    assert not (tmp_path / "out").exists()
