"""`debug precision` shows the block at which an artifact loses accuracy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import slide_deploy
from slide_deploy.parity.block_trace import BlockError
from slide_deploy.pipeline.block_loss import _losses

RunCli = Callable[..., Any]
WRONG = "layers.0.blocks.1.mlp"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, make_model, training_config) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pth"
    model = make_model()
    torch.save({"model": model.state_dict(), "config": training_config(model.config)}, path)
    return path


@pytest.fixture(scope="module")
def broken(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file with one block's weights 1 % off."""
    model = slide_deploy.load(checkpoint)
    with torch.no_grad():
        model.module.get_submodule(WRONG).fc1.weight.mul_(1.01)
    folder = tmp_path_factory.mktemp("broken")
    slide_deploy.export(model, "onnx", folder)
    return folder / "tiny.onnx"


def test_the_ratio_falls_at_the_wrong_block(
    run_cli: RunCli, checkpoint: Path, broken: Path, tmp_path: Path
) -> None:
    chart = tmp_path / "curve.svg"
    done = run_cli(
        "debug", "precision", broken, "--against", checkpoint, "--json", "--chart", chart
    )
    assert done.code == 0, done.err
    found = json.loads(done.out)
    blocks = {block["block"]: block for block in found["blocks"]}
    names = list(blocks)
    before = [blocks[name]["snr_db"] for name in names[: names.index(WRONG)]]
    assert min(value for value in before if value != "NaN") > 100
    assert 20 < blocks[WRONG]["snr_db"] < 60
    assert blocks[WRONG]["loss_db"] > 40
    assert WRONG in chart.read_text()


def test_the_table_shows_blocks_and_what_ran(
    run_cli: RunCli, checkpoint: Path, broken: Path
) -> None:
    done = run_cli("debug", "precision", broken, "--against", checkpoint)
    assert done.code == 0, done.err
    row = next(line for line in done.out.splitlines() if WRONG in line)
    assert "█" in row
    assert " dB" in row
    assert "onnxruntime" in done.out


def test_a_chart_of_unknown_kind_is_refused(
    run_cli: RunCli, checkpoint: Path, broken: Path, tmp_path: Path
) -> None:
    chart = tmp_path / "curve.gif"
    done = run_cli("debug", "precision", broken, "--against", checkpoint, "--chart", chart)
    assert (done.code, done.err.count("has no known suffix")) == (2, 1)


def block(name: str, error: float, snr: float, *, found: bool = True) -> BlockError:
    return BlockError(name, error, 1e-7, error / 1e-7, found, snr)


def test_values_that_are_only_similar_have_no_ratio() -> None:
    """Converters merge blocks: what is closest then is not the block's output."""
    run = [block("stem", 0.1, 30.0), block("attn", 1e-6, 120.0), block("mlp", 1e-2, 40.0)]
    found = {loss.block: (loss.snr_db, loss.loss_db) for loss in _losses([run, run])}
    assert str(found["stem"]) == "(nan, nan)"
    assert str(found["attn"]) == "(120.0, nan)"
    assert found["mlp"] == pytest.approx((40.0, 80.0))


def test_powers_of_noise_are_averaged_over_runs() -> None:
    first, second = [block("mlp", 1e-3, 40.0)], [block("mlp", 1e-3, 30.0)]
    (found,) = _losses([first, second])
    assert found.snr_db == pytest.approx(32.596, abs=1e-3)
