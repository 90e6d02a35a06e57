"""The example of docs/extending.md: a distribution that adds a family, a target and a scheme."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

EXAMPLE = Path(__file__).parent / "extension_example"
SAVE = """
import sys, torch
from tiny_slide.family import TinySlide, TinySlideConfig
torch.manual_seed(0)
torch.save(TinySlide(TinySlideConfig((16, 16), 8, 2, 3)).state_dict(), sys.argv[1])
"""
Python = Callable[..., str]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Python:
    """python(*arguments): the interpreter with the example installed, as pip would lay it out."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(EXAMPLE / "tiny_slide", site / "tiny_slide")
    info = site / "tiny_slide-1.0.dist-info"
    info.mkdir()
    shutil.copy(EXAMPLE / "entry_points.txt", info)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-slide\nVersion: 1.0\n")

    def run(*arguments: object) -> str:
        environment = {**os.environ, "PYTHONPATH": str(site), "COLUMNS": "160"}
        command = [sys.executable, *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_a_third_partys_target_is_listed(python: Python) -> None:
    (row,) = [
        line for line in python("-m", "slide_deploy", "targets").splitlines() if "pt2" in line
    ]
    assert "exported" in row
    assert "NAME.pt2" in row
    assert "native" in row


API = """
import sys, zipfile, slide_deploy
from pathlib import Path
model = slide_deploy.load(sys.argv[1], image_size=(16, 16))
out = Path(sys.argv[2])
noted = slide_deploy.Options(target_options={"note": "hello"})
report = slide_deploy.export_and_verify(model, ["pt2", "jit"], out, noted)
assert report.verdict == "pass", report
archive = zipfile.ZipFile(out / "weights.pt2")
(about,) = [name for name in archive.namelist() if name.endswith("about.json")]
assert b'"note": "hello"' in archive.read(about)
for target, note in (("jit", "x"), ("pt2", 81 * "x")):
    try:
        slide_deploy.export(model, target, out / "no", slide_deploy.Options(
            target_options={"note": note}))
    except slide_deploy.errors.UsageError as error:
        print(error)
assert not (out / "no").exists()
"""


@pytest.mark.slow
def test_a_third_party_target_has_options_of_its_own(python: Python, tmp_path: Path) -> None:
    python("-c", SAVE, tmp_path / "weights.pth")
    refused = python("-c", API, tmp_path / "weights.pth", tmp_path / "out")
    assert "TorchScript has no option --option note" in refused
    assert "it is an option of pt2" in refused
    assert "80 characters at most" in refused


@pytest.mark.slow
def test_a_third_partys_target_is_in_every_report(python: Python, tmp_path: Path) -> None:
    weights, out = tmp_path / "weights.pth", tmp_path / "out"
    python("-c", SAVE, weights)
    paths = [tmp_path / f"r.{kind}" for kind in ("html", "xml", "json", "md")]
    reports = [part for path in paths for part in ("--report", path)]
    arguments = ("-t", "pt2", "-o", out, "--image-size", "16", *reports, weights)
    python("-m", "slide_deploy", "export", *arguments)
    for path in (*paths, out / "report.html", out / "report.json"):
        assert "weights.pt2" in path.read_text(), path
    cases = ElementTree.parse(tmp_path / "r.xml").getroot().iter("testcase")
    assert any("pt2" in str(case.attrib) for case in cases)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param((), id="classification"),
        pytest.param(("--features",), id="features", marks=pytest.mark.slow),
    ],
)
def test_a_third_partys_family_and_target_are_proved(
    python: Python, tmp_path: Path, options: tuple[str, ...]
) -> None:
    weights, out = tmp_path / "weights.pth", tmp_path / "out"
    python("-c", SAVE, weights)
    given = (*options, "--image-size", "16", weights)
    python("-m", "slide_deploy", "export", "-t", "exported,torchscript", "-o", out, *given)
    python("-m", "slide_deploy", "verify", out)
    report = json.loads((out / "report.json").read_text())
    manifest = json.loads((out / "manifest.json").read_text())
    assert report["verdict"] == "pass"
    assert {check["target"] for check in report["checks"]} == {"pt2", "torchscript"}
    assert all(check["operators"] for check in report["checks"])
    assert manifest["model"]["family"] == "tiny-slide"
    assert (out / "weights.pt2").is_file()


JUDGE = """
import numpy as np, torch
from slide_deploy.parity.comparison import compare, gate_results
from slide_deploy.parity.probes import make_probes
from slide_deploy.quantization.catalog import scheme_named, scheme_of
from slide_deploy.reference.expectations import expectations
from slide_deploy.reference.run import run_module
from slide_deploy.types import TensorSpec

torch.manual_seed(0)
scheme = scheme_named("bf16")
assert scheme is scheme_named("brain") is scheme_of("bfloat16", "float32")
model = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.GELU(), torch.nn.Linear(64, 8)).eval()
outputs = (TensorSpec("y", (4, 8)),)
probes = make_probes((TensorSpec("x", (4, 16)),))
expected = expectations(model, outputs, probes, precision="bfloat16")
for e in expected:
    assert 20 < e.noise["y"].scheme_snr_db < 60, e.noise

def judged(module):
    made = {e.probe: run_module(module, outputs, e.inputs) for e in expected}
    found = [
        c
        for e in expected
        for c in compare(e, {"y": made[e.probe]["y"].astype(np.float32)}, scheme.gates)
    ]
    (result,) = gate_results(scheme.gates, found, {})
    return result

rendered = judged(scheme.render(model))
assert rendered.passed and abs(rendered.measured) < 1e-6, rendered
with torch.no_grad():
    model[2].weight[0] *= 1.5
wrong = judged(scheme.render(model))
assert not wrong.passed and wrong.measured > wrong.limit == 6.0, wrong
print(wrong.basis)
"""


def test_a_third_partys_precision_scheme_judges(python: Python) -> None:
    assert python("-c", JUDGE).strip() == "against PyTorch's own bfloat16"
