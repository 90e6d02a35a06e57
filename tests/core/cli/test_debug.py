"""`debug precision` shows the block at which an artifact loses accuracy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

import slide_deploy
from slide_deploy.parity.block_trace import BlockError
from slide_deploy.pipeline.block_loss import _losses

RunCli = Callable[..., Any]
WRONG = "layers.0.blocks.0.mlp"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, make_model, training_config) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pth"
    model = make_model()
    torch.save({"model": model.state_dict(), "config": training_config(model.config)}, path)
    return path


@pytest.fixture(scope="module")
def broken(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file that takes pictures and gives probabilities, one block's weights 1 % off."""
    model = slide_deploy.with_preprocessing(slide_deploy.load(checkpoint), "imagenet")
    model = slide_deploy.with_classifier(model)
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


def test_the_smallest_piece_that_fails_is_a_file_of_its_own(
    run_cli: RunCli, checkpoint: Path, broken: Path, tmp_path: Path
) -> None:
    done = run_cli("debug", "reduce", broken, "--against", checkpoint, "-o", tmp_path / "piece")
    assert done.code == 0, done.err
    piece = onnx.load(tmp_path / "piece" / "tiny.onnx").graph
    assert [node.op_type for node in piece.node] == ["MatMul"]
    assert "1 of " in done.out
    assert "MatMul" in done.out
    (golden,) = (tmp_path / "piece").glob("*.npz")
    again = run_cli("verify", tmp_path / "piece" / "tiny.onnx", "--golden", golden)
    assert again.code == 1, again.out


@pytest.mark.slow
def test_nothing_is_written_where_no_piece_differs(
    run_cli: RunCli, checkpoint: Path, tmp_path: Path
) -> None:
    slide_deploy.export(slide_deploy.load(checkpoint), "onnx", tmp_path)
    files = (tmp_path / "tiny.onnx", "--against", checkpoint, "-o", tmp_path / "piece")
    run_cli("debug", "reduce", *files).refused(2, "no piece of tiny.onnx differs")
    assert not (tmp_path / "piece").exists()


@pytest.mark.parametrize(
    ("target", "precision", "words"),
    [
        ("torchscript", "float32", "artifacts of onnx can"),
        pytest.param("onnx", "float16", "is no float32 artifact", marks=pytest.mark.slow),
    ],
)
def test_what_cannot_be_reduced_is_refused(
    run_cli: RunCli, checkpoint: Path, tmp_path: Path, target: str, precision: str, words: str
) -> None:
    options = slide_deploy.Options(precision=precision)
    manifest = slide_deploy.export(slide_deploy.load(checkpoint), target, tmp_path, options)
    artifact = tmp_path / manifest.artifacts[0].path
    run_cli("debug", "reduce", artifact, "--against", checkpoint).refused(2, words)


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
