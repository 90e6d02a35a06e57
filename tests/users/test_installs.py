"""The wheel with one extra in a fresh environment can export and verify its target."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "tests" / "golden" / "module_dat_default.pth"
PYTHONS = ("python3.11", "python3.12", "python3.13")
TARGETS = ("onnx", "openvino", "coreml", "torchscript")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def call(*command: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command outside the repository's own environment."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    words = list(map(str, command))
    return subprocess.run(
        words, capture_output=True, text=True, check=False, cwd=folder, env=environment
    )


def passes(*command: str | Path, folder: Path | None = None) -> str:
    done = call(*command, folder=folder)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built through the source distribution, so nothing that only lies in the tree gets in."""
    folder = tmp_path_factory.mktemp("dist")
    passes(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    [built] = folder.glob("*.whl")
    return built


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


def install(programs: Path, *packages: str | Path) -> None:
    constraints = ROOT / "constraints.txt"
    passes(programs / "pip", "install", "--quiet", "--constraint", constraints, *packages)


def require_torch(programs: Path) -> None:
    """Skip where no package index in reach has torch for this Python; in CI, fail."""
    pip = (programs / "pip", "install", "--dry-run", "--quiet", "--no-deps")
    done = call(*pip, "--constraint", ROOT / "constraints.txt", "torch")
    if done.returncode:
        stop = pytest.fail if "CI" in os.environ else pytest.skip
        stop(f"torch cannot be installed here: {done.stderr.strip().splitlines()[-1:]}")


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
