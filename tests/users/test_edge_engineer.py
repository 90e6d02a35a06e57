"""An edge engineer: ONNX and OpenVINO on a small processor, and tools that read the files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.users.environments import DIGITS, fails, passes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

OPTIMISE = """
import sys
import onnxruntime as ort
options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
options.optimized_model_filepath = sys.argv[2]
ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
"""


def test_from_the_checkpoint_to_files_for_the_device(
    user: Callable[..., Path], tmp_path: Path
) -> None:
    programs = user("onnx,openvino")
    program = programs / "slide-deploy"

    for tool in ("tensorrt", "rknn"):
        assert "use onnx" in fails(2, program, "export", "-t", tool, DIGITS, folder=tmp_path)
    for opset in ("11", "99"):
        said = fails(2, program, "export", "-t", "onnx", "--opset", opset, DIGITS, folder=tmp_path)
        assert "use 17 to 23" in said
    both = ("export", "-t", "onnx", "--batch", "4", "--dynamic", DIGITS)
    assert "use one of --batch and --dynamic" in fails(2, program, *both, folder=tmp_path)

    export = ("export", "-t", "onnx", "-t", "ov", "--opset", "17", DIGITS, "-o", "out")
    said = passes(program, *export, folder=tmp_path)
    assert "--opset 17 applies to onnx only" in said
    assert said.count("passed") >= 2
    [golden] = (tmp_path / "out").glob("*.golden-*.npz")

    # What a target that is not installed needs.
    missing = fails(3, program, "export", "-t", "coreml", DIGITS, folder=tmp_path)
    assert "pip install 'slide-deploy[coreml]'" in missing

    # An optimised copy, on a machine without the checkpoint.
    optimised = ("optimised.onnx",)
    source = tmp_path / "out" / "slide_swin_digits.onnx"
    passes(programs / "python", "-c", OPTIMISE, source, *optimised, folder=tmp_path)
    given = passes(program, "verify", *optimised, "--golden", golden, folder=tmp_path)
    assert "no manifest was compared" in " ".join(given.split())

    # A folder that ships one artifact only.
    (tmp_path / "shipped").mkdir()
    for path in (source, golden, tmp_path / "out" / "manifest.json"):
        (tmp_path / "shipped" / path.name).write_bytes(path.read_bytes())
    shipped = passes(program, "verify", "shipped", folder=tmp_path)
    assert "slide_swin_digits_openvino_model" in shipped

    bench = ("bench", "out", "--threads", "1", "--rounds", "2", "--calls", "1", "--warmup", "1")
    timed = passes(program, *bench, "--json", "bench.json", folder=tmp_path)
    assert "slide_swin_digits.onnx" in timed
    assert json.loads((tmp_path / "bench.json").read_text())["processor"]

    # The wrong file in the right place.
    source.write_bytes(source.read_bytes()[:-10])
    fails(1, program, "verify", "out", folder=tmp_path)
