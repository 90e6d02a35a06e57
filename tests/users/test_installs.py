"""The wheel with one extra in a fresh environment can export and verify its target."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.users.environments import MODULE as MODEL
from tests.users.environments import ROOT, call, install, passes, require_torch

PYTHONS = ("python3.11", "python3.12", "python3.13")
TARGETS = ("onnx", "openvino", "coreml", "torchscript")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module", params=PYTHONS)
def python(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if shutil.which(name) is None or call(name, "--version").returncode:
        pytest.skip(f"{name} is not on PATH")
    return name


@pytest.fixture
def environment(python: str, tmp_path: Path) -> Iterator[Path]:
    """The programs of a fresh virtual environment, which is removed after the test."""
    folder = tmp_path / "environment"
    passes(python, "-m", "venv", folder)
    yield folder / "bin"
    shutil.rmtree(folder)


def installed(programs: Path, module: str) -> bool:
    return call(programs / "python", "-c", f"import {module}").returncode == 0


@pytest.mark.parametrize("target", TARGETS)
def test_the_extra_of_a_target_is_enough_for_it(
    wheel: Path, environment: Path, tmp_path: Path, target: str
) -> None:
    require_torch(environment)
    install(environment, f"{wheel}[{target}]")
    assert installed(environment, "scipy") == (target == "coreml")
    program = environment / "slide-deploy"
    passes(program, "targets", folder=tmp_path)
    export = ("export", "-t", target, MODEL, "--image-size", "8", "-o", "out")
    passes(program, *export, folder=tmp_path)
    passes(program, "verify", "out", folder=tmp_path)


def test_the_base_install_with_onnx_runtime_verifies_a_folder(
    wheel: Path, environment: Path, tmp_path: Path
) -> None:
    export = ("export", "-t", "onnx", MODEL, "--image-size", "8", "-o", "out")
    passes(sys.executable, "-m", "slide_deploy", *export, folder=tmp_path)
    install(environment, wheel, "onnxruntime", "onnx")
    assert not installed(environment, "torch")
    assert not installed(environment, "scipy")
    program = environment / "slide-deploy"
    passes(program, "targets", folder=tmp_path)
    passes(program, "verify", "out", folder=tmp_path)


def test_a_core_ml_package_is_read_without_torch_and_coremltools(
    wheel: Path, environment: Path
) -> None:
    install(environment, f"{wheel}[coreml-read]")
    assert not any(installed(environment, name) for name in ("torch", "coremltools"))
    package = ROOT / "tests" / "fixtures" / "written-before" / "module.mlpackage"
    assert "conv" in passes(environment / "slide-deploy", "coreml", "inspect", package)
    passes(environment / "slide-deploy", "coreml", "check", package)
