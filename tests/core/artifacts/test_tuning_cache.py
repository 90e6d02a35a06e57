"""The tuning cache returns entries for equal conditions only, and ignores damaged files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from slide_deploy.artifacts import tuning_cache as remembering
from slide_deploy.artifacts.tuning_cache import load_tuning, save_tuning
from slide_deploy.fusion.branches import fuse
from slide_deploy.types import Options, Precision, TensorSpec

IMAGE = (TensorSpec("image", (1, 3, 16, 16)),)
FORMS = {"some shape": "flat"}
OPTIONS = Options()


@pytest.fixture
def kept(make_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The tiny model fused, with forms remembered for it in a cache of its own."""
    monkeypatch.setattr(remembering.platformdirs, "user_cache_dir", lambda _: str(tmp_path))
    module = fuse(make_model())
    return module, save_tuning(module, IMAGE, "onnx", OPTIONS, FORMS)


def test_it_is_found_again(kept) -> None:
    module, path = kept
    assert load_tuning(module, IMAGE, "onnx", OPTIONS) == FORMS
    assert json.loads(path.read_text())["forms"] == FORMS


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("openvino", OPTIONS),
        ("onnx", replace(OPTIONS, batch=2)),
        ("onnx", replace(OPTIONS, precision=Precision.FLOAT16)),
    ],
)
def test_another_target_batch_or_precision_finds_nothing(kept, target, options) -> None:
    assert load_tuning(kept[0], IMAGE, target, options) == {}


def test_other_shapes_find_nothing(kept) -> None:
    one = kept[0].layers[0].blocks[0].attn
    assert load_tuning(one, (TensorSpec("x", (1, 8, 9, 4)),), "onnx", OPTIONS) == {}


@pytest.mark.parametrize("changed", ["processor_name", "toolchain"])
def test_another_processor_or_runtime_version_finds_nothing(
    kept, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = "another" if changed == "processor_name" else {"onnxruntime": "0.1"}
    monkeypatch.setattr(remembering, changed, lambda: other)
    assert load_tuning(kept[0], IMAGE, "onnx", OPTIONS) == {}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"schema_version": 2}',
        b'{"schema_version": 1, "key": {}, "forms": {"some shape": "flat"}}',
        "wrong forms",
    ],
)
def test_a_damaged_or_foreign_file_is_not_used(kept, content: bytes | str) -> None:
    module, path = kept
    if isinstance(content, str):
        content = json.dumps({**json.loads(path.read_text()), "forms": ["flat"]}).encode()
    path.write_bytes(content)
    assert load_tuning(module, IMAGE, "onnx", OPTIONS) == {}


def test_export_takes_the_table_where_the_cache_is_damaged(
    kept, tiny_file, run_cli, in_tmp: Path
) -> None:
    kept[1].write_bytes(b"garbage")
    done = run_cli("export", "-t", "torchscript", tiny_file(), "-o", "out")
    assert done.code == 0, done.err
    layers = json.loads(Path("out/manifest.json").read_text())["artifacts"][0]["lowering"]
    assert {layer["why"] for layer in layers} == {"default for torchscript"}
