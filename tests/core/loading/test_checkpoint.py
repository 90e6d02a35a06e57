"""All checkpoint formats are read as plain data."""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from slide_deploy.errors import CheckpointError
from slide_deploy.loading.checkpoint import read_checkpoint
from slide_deploy.utils.files import checkpoint_at

State = dict[str, torch.Tensor]
Save = Callable[..., Path]


@pytest.fixture
def state() -> State:
    return {"a.weight": torch.arange(6.0).reshape(2, 3), "a.index": torch.arange(3)}


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """save(content): a file that torch.save wrote."""

    def write(content: Any, name: str = "file.pth", **more: Any) -> Path:
        torch.save(content, tmp_path / name, **more)
        return tmp_path / name

    return write


def same(found: State, expected: State) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[key], expected[key]) for key in expected
    )


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "optimizer": {"lr": 0.1}, "epoch": 3},
        lambda state: {"state_dict": state},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
        lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
        lambda state: {"model": {f"_orig_mod.module.{k}": v for k, v in state.items()}},
    ],
    ids=["bare", "official", "wrapped", "ddp", "compiled", "compiled-in-ddp", "ddp-compiled"],
)
def test_wrappings_come_off(save: Save, state: State, wrap: Callable[[State], Any]) -> None:
    source, found = read_checkpoint(save(wrap(state))).choose(None)
    assert source.weights == "model"
    assert same(found, state)


def test_a_prefix_that_not_all_keys_have_stays(save: Save, state: State) -> None:
    mixed = {"module.a": state["a.weight"], "b": state["a.index"]}
    assert same(read_checkpoint(save(mixed)).choose(None)[1], mixed)


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema"])
def test_averaged_weights_are_the_default(save: Save, state: State, key: str) -> None:
    averaged = {name: value + 1 for name, value in state.items()}
    source, found = read_checkpoint(save({"model": state, key: averaged})).choose(None)
    assert source.weights == "ema"
    assert same(found, averaged)


def test_the_other_weights_are_there_when_asked_for(save: Save, state: State) -> None:
    averaged = {name: value + 1 for name, value in state.items()}
    checkpoint = read_checkpoint(save({"model": state, "state_dict_ema": averaged}))
    source, found = checkpoint.choose("model")
    assert source.weights == "model"
    assert same(found, state)


def test_weights_that_are_not_there_are_said_not_to_be(save: Save, state: State) -> None:
    with pytest.raises(CheckpointError, match="no 'ema' weights, only model"):
        read_checkpoint(save({"model": state})).choose("ema")


def test_files_of_the_old_format_are_read(save: Save, state: State) -> None:
    path = save(state, _use_new_zipfile_serialization=False)
    assert same(read_checkpoint(path).choose(None)[1], state)


def test_safetensors_are_read(tmp_path: Path, state: State) -> None:
    save_file(state, tmp_path / "file.safetensors")
    assert same(read_checkpoint(tmp_path / "file.safetensors").choose(None)[1], state)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.bool_])
def test_numpy_scalars_are_read(save: Save, state: State, kind: type[np.generic]) -> None:
    path = save({"model": state, "max_accuracy": kind(1), "config": {"DATA": {"X": kind(1)}}})
    assert read_checkpoint(path).config == {"DATA": {"X": 1}}


@pytest.fixture
def with_yacs(save: Save, state: State) -> Path:
    """A checkpoint whose config is a real, nested yacs node."""
    from yacs.config import CfgNode

    config = CfgNode({"MODEL": {"NAME": "slide", "DEPTHS": [2, 2], "SCALE": None}})
    config.freeze()
    return save({"model": state, "config": config})


def test_a_yacs_config_is_read_as_mappings(with_yacs: Path) -> None:
    found = read_checkpoint(with_yacs).config
    assert found == {"MODEL": {"NAME": "slide", "DEPTHS": [2, 2], "SCALE": None}}


def test_the_options_of_a_training_script_are_passed_over(save: Save, state: State) -> None:
    """As PVT's and DeiT's scripts save them: `args` beside the weights."""
    options = argparse.Namespace(model="pvt_tiny", lr=1e-3, drop=None, milestones=[1, 2])
    found = read_checkpoint(save({"model": state, "epoch": 3, "args": options}))
    assert same(found.choose(None)[1], state)
    assert found.config is None


def test_yacs_need_not_be_installed(with_yacs: Path) -> None:
    code = (
        "import sys, pathlib; sys.modules['yacs'] = sys.modules['yacs.config'] = None\n"
        "from slide_deploy.loading.checkpoint import read_checkpoint\n"
        "print(read_checkpoint(pathlib.Path(sys.argv[1])).config['MODEL']['NAME'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, with_yacs], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "slide", done.stderr


def test_the_hash_is_that_of_the_file(save: Save, state: State) -> None:
    path = save(state)
    assert read_checkpoint(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_quick_checks_import_no_torch(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        checkpoint_at(tmp_path / "missing.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_one_weight_that_is_no_number_is_named(
    save: Save, state: State, value: float, dtype: torch.dtype
) -> None:
    state["b.weight"] = torch.tensor([1.0, value], dtype=dtype)
    with pytest.raises(CheckpointError, match=r"b\.weight has NaN or infinite values"):
        read_checkpoint(save(state))
