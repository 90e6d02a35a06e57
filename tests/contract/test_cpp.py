"""The C++ example of an OpenVINO package, compiled against the headers and libraries in the wheel.

Needs cmake and a C++ compiler.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import openvino
import pytest

import slide_deploy
from slide_deploy.artifacts.manifest import find_manifest
from slide_deploy.report.receiver import handouts
from slide_deploy.verification.record import read_report

TOOLS = [shutil.which("cmake"), shutil.which("c++")]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not all(TOOLS), reason="cmake or a C++ compiler is not installed"),
]

DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "slide_swin_digits.pth"
PROJECT = """
cmake_minimum_required(VERSION 3.16)
project(example CXX)
set(CMAKE_CXX_STANDARD 17)
find_package(OpenVINO REQUIRED COMPONENTS Runtime)
add_executable(example example.cpp)
target_link_libraries(example openvino::runtime)
"""
# In place of the last brace, so that more than the best class can be compared.
SCORES = "for (size_t i = 0; i < result.get_size(); ++i) std::cout << scores[i] << '\\n'; }"


def test_the_cpp_example_computes_what_the_artifact_does(tmp_path: Path) -> None:
    model = slide_deploy.with_preprocessing(slide_deploy.load(DIGITS), "auto")
    slide_deploy.export_and_verify(model, "openvino", tmp_path, seed=1)
    manifest = find_manifest(tmp_path)
    assert manifest
    (record,) = manifest.artifacts
    (page,) = handouts(manifest, read_report(tmp_path / "report.json"))
    code = dict(page.examples)["C++"]
    assert code in (tmp_path / f"{model.name}.md").read_text(encoding="utf-8")
    (tmp_path / "example.cpp").write_text(code.removesuffix("}") + SCORES)
    (tmp_path / "CMakeLists.txt").write_text(PROJECT)
    where = Path(openvino.__file__).parent / "cmake"
    for step in (["-B", "build", f"-DOpenVINO_DIR={where}"], ["--build", "build"]):
        built = subprocess.run(
            ["cmake", *step], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert built.returncode == 0, built.stdout + built.stderr
    pixels = np.random.default_rng(4).integers(0, 256, record.inputs[0].shape, np.uint8)
    (tmp_path / "cat.rgb").write_bytes(pixels.tobytes())
    ran = subprocess.run(
        [tmp_path / "build" / "example"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    best, *scores = ran.stdout.split()
    expected = slide_deploy.run_artifact(tmp_path / record.path, {"p": {"image": pixels}})
    logits = expected.outputs["p"]["logits"][0]
    np.testing.assert_allclose(np.float64(scores), logits, rtol=1e-4, atol=1e-4)
    assert int(best) == logits.argmax()
