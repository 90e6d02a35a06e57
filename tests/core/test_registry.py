"""Targets are found by file, name and alias."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from slide_deploy import registry
from slide_deploy.errors import MissingLibrary, UnknownName, UsageError
from slide_deploy.registry import recognise, resolve_targets, target_names

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("room", ["exporters", "validators"])
def test_every_file_is_a_target(room: str) -> None:
    files = {path.stem.replace("_", "-") for path in (ROOT / room).glob("[!_]*.py")}
    assert files == set(target_names())


@pytest.mark.parametrize("target", ["onnx", "coreml", "openvino", "torchscript"])
def test_a_target_is_called_as_its_files(target: str) -> None:
    assert registry.exporter(target).target == registry.runtime(target).target == target


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["onnx"], ("onnx",)),
        (["ios"], ("coreml",)),
        (["mlpackage"], ("coreml",)),
        (["ov"], ("openvino",)),
        (["pt"], ("torchscript",)),
        (["ONNX", " Ios "], ("onnx", "coreml")),
        (["onnx,ov"], ("onnx", "openvino")),
        (["onnx", "onnx"], ("onnx",)),
        (["ios", "coreml"], ("coreml",)),
        (["all"], ("coreml", "onnx", "openvino", "torchscript")),
        (["onnx", "all"], ("onnx", "coreml", "openvino", "torchscript")),
    ],
    ids=str,
)
def test_names_as_typed(typed: list[str], meant: tuple[str, ...]) -> None:
    assert resolve_targets(typed) == meant


@pytest.mark.parametrize("typed", ["", "onnx,", "on nx", "onnx;ov"])
def test_names_that_nobody_knows(typed: str) -> None:
    with pytest.raises(UnknownName):
        resolve_targets([typed])


def test_aliases_belong_to_one_target_each() -> None:
    names = [
        name for target in target_names() for name in (target, *registry.exporter(target).aliases)
    ]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("target", ["onnx", "coreml", "openvino", "torchscript"])
def test_the_name_that_an_exporter_gives_is_recognised(tmp_path: Path, target: str) -> None:
    assert recognise(tmp_path / registry.exporter(target).file_name("x.y")).target == target


def test_a_name_of_no_target_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"model\.tflite"):
        recognise(Path("model.tflite"))


def test_what_is_missing_is_named_with_the_command(without: Callable[..., None]) -> None:
    without("onnx")
    with pytest.raises(MissingLibrary, match="needs onnx, which is not installed") as refused:
        registry.require("export to ONNX", ("torch", "onnx"), "onnx")
    assert refused.value.hint == "pip install 'slide-deploy[onnx]'"


def test_nothing_missing_is_nothing_said() -> None:
    registry.require("export", ("json",), "x")
