"""Files that were exchanged for another checkpoint's, with hashes made to fit: `verify` exits 1."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from slide_deploy import Options, export, load
from slide_deploy.utils.hashing import sha256_of

RunCli = Callable[..., Any]
CopyOf = Callable[[str], Path]
TARGETS = ("onnx", "torchscript", "openvino", "coreml")


@pytest.fixture(scope="session")
def others(sibling: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `exported` holds, of the sibling."""
    folder = tmp_path_factory.mktemp("others")
    export(load(sibling, image_size=(6, 7)), TARGETS, folder, Options(lowering="depthwise"))
    return folder


def rehash(folder: Path, golden: Path | None = None) -> None:
    """Make the manifest's hashes those of the files, and its golden vectors `golden`."""
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    for entry in manifest["artifacts"]:
        entry["golden"] = golden.name if golden else entry["golden"]
        entry["golden_sha256"] = sha256_of(folder / entry["golden"])
        entry["sha256"] = sha256_of(folder / entry["path"])
    file.write_text(json.dumps(manifest))


def take(path: Path, folder: Path) -> Path:
    """Put a file or folder into the place of the one of its name."""
    if path.is_dir():
        shutil.rmtree(folder / path.name)
        return shutil.copytree(path, folder / path.name)
    return Path(shutil.copy(path, folder))


def failed(done: Any, *words: str) -> None:
    assert done.code == 1, done.out + done.err
    out = " ".join((done.out + done.err).split())
    assert [word for word in words if word not in out] == []


def golden_of(folder: Path) -> Path:
    (path,) = folder.glob("*.golden-*.npz")
    return path


def test_another_checkpoints_artifact_and_golden_vectors_under_fitting_hashes(
    artifact: CopyOf, others: Path, run_cli: RunCli
) -> None:
    path = artifact("onnx")
    take(others / path.name, path.parent)
    rehash(path.parent, take(golden_of(others), path.parent))
    failed(run_cli("verify", path), "golden vectors lone.golden", "its metadata says")


@pytest.mark.parametrize("target", TARGETS)
def test_another_checkpoints_artifact_is_told_by_its_metadata(
    artifact: CopyOf, others: Path, run_cli: RunCli, target: str
) -> None:
    path = artifact(target)
    take(others / path.name, path.parent)
    rehash(path.parent)
    failed(run_cli("verify", path), "its metadata says that it was exported from lone.pth")


def test_metadata_with_a_false_source_fails_against_the_checkpoint(
    artifact: CopyOf, run_cli: RunCli, lone_module: Path
) -> None:
    path = artifact("onnx")
    model = onnx.load(path)
    for entry in model.metadata_props:
        if entry.key == "source_sha256":
            entry.value = "0" * 64
    onnx.save(model, path)
    rehash(path.parent)
    done = run_cli("verify", path, "--against", lone_module, "--image-size", "6x7")
    failed(done, "its metadata says", "sha256 000000000000…")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda a: [a[k].__imul__(1e6) for k in a if "/noise/" in k], id="noise"),
        pytest.param(lambda a: [a.pop(k) for k in list(a) if OTHER_PROBE.match(k)], id="one-probe"),
    ],
)
def test_golden_vectors_that_were_made_lenient(
    artifact: CopyOf, run_cli: RunCli, change: Callable[[dict[str, np.ndarray]], object]
) -> None:
    path = artifact("onnx")
    golden = golden_of(path.parent)
    with np.load(golden) as archive:
        arrays = dict(archive)
    change(arrays)
    np.savez_compressed(golden, **arrays)  # type: ignore[arg-type]
    rehash(path.parent)
    run_cli("verify", path).refused(1, "their digest differs")
    run_cli("verify", path, "--golden", golden).refused(1, "their digest differs")


OTHER_PROBE = re.compile(r"[1-9]\d*/")


def test_a_stale_artifact_in_the_folder_is_named(
    artifact: CopyOf, others: Path, run_cli: RunCli
) -> None:
    path = artifact("torchscript")
    shutil.copy(others / "lone.onnx", path.parent / "stale.onnx")
    for extra in ("lone.mlpackage", "lone_openvino_model"):
        shutil.rmtree(path.parent / extra)
    done = run_cli("verify", path.parent)
    assert done.code == 0, done.out
    assert "note: stale.onnx is in" in done.out
