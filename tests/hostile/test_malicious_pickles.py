"""Code in pickles never runs, and the error names the refused global."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from slide_deploy import load
from slide_deploy.errors import CheckpointError, UnsafeCheckpoint
from slide_deploy.loading.checkpoint import _unpickle

RunCli = Callable[..., Any]


class Runs:
    """Unpickles to a call of `function(*arguments)`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that exists if, and only if, code of a checkpoint was run."""
    return tmp_path / "code-was-run"


@pytest.fixture
def payload(marker: Path) -> Runs:
    return Runs(os.system, f"touch {marker}")


SYSTEM = f"{os.system.__module__}.system"


def plain(content: Any, path: Path, protocol: int) -> None:
    path.write_bytes(pickle.dumps(content, protocol=protocol))


def zipped(content: Any, path: Path, protocol: int) -> None:
    torch.save(content, path, pickle_protocol=protocol)


def legacy(content: Any, path: Path, protocol: int) -> None:
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=False)


WAYS = [
    pytest.param(save, protocol, id=f"{save.__name__}-{protocol}", marks=marks)
    for save, protocol, marks in (
        (plain, 2, ()),
        (plain, 4, ()),
        (plain, 5, ()),
        (zipped, 2, ()),
        (zipped, 4, ()),
        (legacy, 2, ()),
        (legacy, 4, ()),
    )
]


@pytest.mark.filterwarnings("ignore::UserWarning:torch")
@pytest.mark.parametrize(("save", "protocol"), WAYS)
def test_the_global_is_named(
    tmp_path: Path, payload: Runs, save: Callable[..., None], protocol: int
) -> None:
    path = tmp_path / "evil.pth"
    save({"model": payload}, path, protocol)
    with pytest.raises(UnsafeCheckpoint, match=SYSTEM.replace(".", r"\.")):
        load(path)


@pytest.mark.filterwarnings("ignore::UserWarning:torch")
@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("save", [plain, zipped, legacy])
def test_nothing_is_run(
    tmp_path: Path, payload: Runs, marker: Path, save: Callable[..., None], protocol: int
) -> None:
    path = tmp_path / "evil.pth"
    save({"model": {"w": torch.ones(1)}, "config": payload}, path, protocol)
    with pytest.raises(CheckpointError):
        load(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "call",
    [
        pytest.param((eval, "1 + 1")),
        pytest.param((exec, "pass")),
        pytest.param((__import__, "antigravity")),
        pytest.param((getattr, str, "upper")),
        (open, "/dev/null"),
        (pickle.loads, pickle.dumps(1)),
        (torch.load, "file"),
        (torch.hub.load, "owner/repository", "model"),
    ],
    ids=lambda call: call[0].__name__,
)
def test_any_function_is_refused(tmp_path: Path, call: tuple[Any, ...]) -> None:
    zipped({"model": Runs(*call)}, tmp_path / "evil.pth", 2)
    with pytest.raises(UnsafeCheckpoint, match=rf"would import .*\b{call[0].__name__};"):
        load(tmp_path / "evil.pth")


def test_a_dictionary_that_updates_itself_through_a_method_is_refused(
    tmp_path: Path, marker: Path
) -> None:
    """GLOBAL + REDUCE written by hand, as no pickler would: `os.system` behind an alias."""
    code = f"c{os.system.__module__}\nsystem\n(S'touch {marker}'\ntR."
    archive = tmp_path / "evil.pth"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("evil/data.pkl", code)
        file.writestr("evil/version", "3\n")
    with pytest.raises(UnsafeCheckpoint, match=SYSTEM.replace(".", r"\.")):
        load(archive)
    assert not marker.exists()


def test_a_whole_pickled_model_is_refused_by_its_class(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pth")
    with pytest.raises(UnsafeCheckpoint, match=r"torch\.nn\.modules\.linear\.Linear") as refused:
        load(tmp_path / "model.pth")
    assert "state_dict" in refused.value.hint


def test_a_config_of_a_class_nobody_knows_is_refused_by_its_name(tmp_path: Path) -> None:
    content = {"model": {"w": torch.ones(1)}, "args": argparse.FileType("w")}
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(UnsafeCheckpoint, match=r"argparse\.FileType"):
        load(tmp_path / "model.pth")


@pytest.mark.filterwarnings("ignore::UserWarning:torch")
@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("save", [plain, zipped, legacy])
def test_nothing_is_run_inside_of_a_namespace(
    tmp_path: Path, payload: Runs, marker: Path, save: Callable[..., None], protocol: int
) -> None:
    path = tmp_path / "evil.pth"
    save({"model": {"w": torch.ones(1)}, "args": argparse.Namespace(lr=payload)}, path, protocol)
    with pytest.raises(CheckpointError):
        load(path)
    assert not marker.exists()


class Dressed:
    """Unpickles to a Namespace that `state` is set on, as no Namespace would ask for it."""

    def __init__(self, state: object) -> None:
        self.state = state

    def __reduce__(self) -> tuple[Any, ...]:
        return argparse.Namespace, (), self.state


@pytest.mark.parametrize(
    "state",
    [
        {"__class__": OrderedDict},
        {"__setstate__": torch._utils._rebuild_tensor_v2},
        ({}, {"__class__": OrderedDict}),
        ({}, {"__setstate__": OrderedDict, "__dict__": {}}),
        [1, 2],
    ],
)
def test_whatever_is_set_on_a_namespace_is_forgotten(tmp_path: Path, state: object) -> None:
    content = {"model": {"w": torch.ones(1)}, "args": Dressed(state)}
    torch.save(content, tmp_path / "odd.pth")
    stored = _unpickle(tmp_path / "odd.pth")["args"]
    assert type(stored).__slots__ == ()
    assert not hasattr(stored, "__dict__")
    assert not isinstance(stored, (argparse.Namespace, OrderedDict))


def test_a_namespace_is_made_of_nothing(tmp_path: Path) -> None:
    content = {"model": {"w": torch.ones(1)}, "args": Runs(argparse.Namespace, 1)}
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match="not a PyTorch checkpoint"):
        load(tmp_path / "odd.pth")


def test_safe_names_are_not_left_allowed_for_others(golden: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    load(golden / "micro_official.pth")
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("command", ["inspect", "export", "fuse", "verify"])
def test_every_command_refuses_it(
    run_cli: RunCli, in_tmp: Path, payload: Runs, marker: Path, command: str
) -> None:
    zipped({"model": payload}, in_tmp / "evil.pth", 2)
    (in_tmp / "artifact.onnx").write_bytes(b"x")
    arguments = {
        "inspect": ("evil.pth",),
        "export": ("evil.pth", "-t", "torchscript"),
        "fuse": ("evil.pth", "-o", "fused.safetensors"),
        "verify": ("artifact.onnx", "--against", "evil.pth"),
    }[command]
    run_cli(command, *arguments).refused(2, SYSTEM)
    assert sorted(path.name for path in in_tmp.iterdir()) == ["artifact.onnx", "evil.pth"]
    assert not marker.exists()


def test_a_numpy_object_scalar_does_not_smuggle_a_pickle(tmp_path: Path, marker: Path) -> None:
    """numpy's scalar constructor is allowed; it must not unpickle what it is given."""
    import numpy as np

    inner = pickle.dumps(Runs(os.system, f"touch {marker}"), protocol=2)
    scalar = np.float64(1.0).__reduce__()[0]
    content = {"model": {"w": torch.ones(1)}, "x": Runs(scalar, np.dtype("O"), inner)}
    torch.save(content, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError):
        load(tmp_path / "evil.pth")
    assert not marker.exists()
