from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slide_deploy.coreml import evaluate, read

PACKAGE = Path(__file__).parents[2] / "fixtures" / "written-before" / "module.mlpackage"
RunCli = Callable[..., Any]


@pytest.fixture
def array(tmp_path: Path) -> Path:
    shape = [int(size or 0) for size in read(PACKAGE).inputs[0].shape or ()]
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal(shape))
    return tmp_path / "x.npy"


def test_inspect_shows_values_and_operations(run_cli: RunCli) -> None:
    done = run_cli("coreml", "inspect", PACKAGE)
    assert done.code == 0, done.err
    program = read(PACKAGE)
    for shown in ("iOS16, macOS13", "function main (CoreML6", program.inputs[0].name, "conv "):
        assert shown in done.out
    assert json.loads(run_cli("coreml", "inspect", PACKAGE, "--json").out)["path"] == PACKAGE.name


def test_residency_is_called_a_prediction(run_cli: RunCli) -> None:
    done = run_cli("coreml", "residency", PACKAGE)
    assert done.code == 0, done.err
    shown = " ".join(done.out.split())
    assert "This is a prediction from the file alone" in shown
    assert "https://apple.github.io/coremltools" in shown.replace(" ", "")
    [function] = json.loads(run_cli("coreml", "residency", PACKAGE, "--json").out)["functions"]
    counted = sum(own["count"] for own in function["placements"])
    assert counted == sum(own["operations"] for own in function["segments"]) > 0


def test_check_fails_on_a_system_that_is_too_old(run_cli: RunCli) -> None:
    assert run_cli("coreml", "check", PACKAGE).code == 0
    done = run_cli("coreml", "check", PACKAGE, "--deployment-target", "iOS15", "--json")
    assert done.code == 1
    [function] = json.loads(done.out)["functions"]
    assert function["violations"] == ["iOS15 does not load the package; it needs iOS16"]


def test_run_writes_what_the_program_computes(run_cli: RunCli, array: Path, tmp_path: Path) -> None:
    done = run_cli("coreml", "run", PACKAGE, "-i", array, "-o", tmp_path / "out.npz")
    assert done.code == 0, done.err
    program = read(PACKAGE)
    feeds = {program.inputs[0].name: np.load(array).astype(np.float32)}
    with np.load(tmp_path / "out.npz") as written:
        for name, expected in evaluate(program, feeds).items():
            assert name in done.out
            np.testing.assert_array_equal(written[name], expected)


def test_run_shows_the_spread_over_variants(run_cli: RunCli, array: Path) -> None:
    done = run_cli("coreml", "run", PACKAGE, "-i", array, "--variants")
    assert done.code == 0, done.err
    rows = [line for line in done.out.splitlines() if line.startswith("│ sums in float16")]
    # This package is in float32, which no variant changes.
    assert [row.split("│")[3].strip() for row in rows] == ["0"]


def test_run_says_which_input_is_missing(run_cli: RunCli) -> None:
    done = run_cli("coreml", "run", PACKAGE)
    assert (done.code, "add --input" in done.err) == (2, True)
    done = run_cli("coreml", "run", PACKAGE, "-o", "out.txt")
    assert (done.code, "does not end in .npz" in done.err) == (2, True)


def test_a_damaged_package_is_one_line(run_cli: RunCli, tmp_path: Path) -> None:
    broken = shutil.copytree(PACKAGE, tmp_path / "broken.mlpackage")
    weights = broken / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    weights.write_bytes(weights.read_bytes()[:-64])
    for command in ("inspect", "check", "run"):
        done = run_cli("coreml", command, broken)
        assert done.code == 1
        assert done.err.startswith("error: weight.bin is truncated")


@pytest.mark.parametrize(("missing", "code"), [((), 0), (("google.protobuf",), 3), (("scipy",), 3)])
def test_neither_torch_nor_coremltools_is_needed(
    array: Path, missing: tuple[str, ...], code: int
) -> None:
    program = (
        "import sys\n"
        "from importlib.abc import MetaPathFinder\n"
        "class Block(MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name in {('torch', 'coremltools', *missing)!r}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Block())\n"
        f"sys.argv = ['slide-deploy', 'coreml', 'run', {str(PACKAGE)!r}, '-i', {str(array)!r}]\n"
        "from slide_deploy.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    if missing:
        assert "pip install 'slide-deploy[coreml-read]'" in done.stderr


@pytest.mark.parametrize("command", ["inspect", "check", "run"])
def test_a_package_that_is_not_there_is_a_wrong_argument(run_cli, command: str) -> None:
    done = run_cli("coreml", command, "absent.mlpackage")
    done.refused(2, "absent.mlpackage does not exist", "check the path")
