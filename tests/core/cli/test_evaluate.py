"""slide-deploy evaluate, on the digits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import slide_deploy

DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "slide_swin_digits.pth"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    manifest = slide_deploy.export(slide_deploy.load(DIGITS), "onnx", folder)
    return folder / manifest.artifacts[0].path


def test_a_table_of_accuracies_beside_the_checkpoint(run_cli, artifact: Path) -> None:
    done = run_cli("evaluate", artifact, "--data", "digits", "--against", DIGITS, "--json")
    assert done.code == 0
    found = json.loads(done.out)
    (own,) = found["artifacts"]
    assert found["images"] == 450
    assert own["top1"] == found["reference"]["top1"] > 99
    assert own["agreement"] == 100
    shown = run_cli("evaluate", artifact, "--data", "digits")
    assert "450 images of digits, 10 classes" in shown.out
    assert "most confused" in shown.out


def test_a_limit_that_is_not_met_exits_with_1(run_cli, artifact: Path) -> None:
    done = run_cli("evaluate", artifact, "--data", "digits", "--min-top1", "99.9")
    assert done.code == 1
    assert "less than 99.9 %" in done.out


def test_a_drop_is_measured_from_a_checkpoint(run_cli, artifact: Path) -> None:
    done = run_cli("evaluate", artifact, "--data", "digits", "--max-drop", "1")
    done.refused(2, "--max-drop needs the checkpoint", "--against")
    done = run_cli("evaluate", artifact, "--data", "nowhere")
    done.refused(2, "data nowhere does not exist", "folder")
