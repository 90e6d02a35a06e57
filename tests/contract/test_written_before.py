"""Files of an earlier version can be read: `tests/fixtures/written-before`.

The folder is the whole output of `slide-deploy export -t all module.pth --image-size 6` at the
commit dc9a597, less its HTML page; `module.pth` is `tests/golden/module_dat_default.pth`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from slide_deploy.verification.record import read_report

WRITTEN = Path(__file__).parents[1] / "fixtures" / "written-before"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(WRITTEN, tmp_path / "module-deploy")


def test_its_golden_vectors_prove_every_artifact(
    folder: Path, run_cli: Callable[..., object]
) -> None:
    report = folder.parent / "now.json"
    done = run_cli("verify", folder, "--report", report)
    assert done.code == 0, done.err
    assert [check.target for check in read_report(report).checks] == [
        *("coreml", "onnx", "openvino", "torchscript")
    ]


def test_its_checkpoint_proves_every_artifact(
    folder: Path, golden: Path, run_cli: Callable[..., object]
) -> None:
    model = shutil.copy(golden / "module_dat_default.pth", folder.parent / "module.pth")
    done = run_cli("verify", folder, "--against", model, "--image-size", "6")
    assert done.code == 0, done.err


@pytest.mark.slow
def test_its_report_serves_as_a_baseline(folder: Path, run_cli: Callable[..., object]) -> None:
    done = run_cli("verify", folder, "--baseline", folder / "report.json")
    assert done.code == 0, done.err


def test_a_changed_weight_in_it_is_noticed(folder: Path, run_cli: Callable[..., object]) -> None:
    weights = folder / "module_openvino_model" / "module.bin"
    content = bytearray(weights.read_bytes())
    content[100] ^= 0x40
    weights.write_bytes(content)
    done = run_cli("verify", folder)
    assert done.code == 1
    assert "SHA-256 differs" in done.out
