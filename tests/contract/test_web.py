"""The package of the profile `browser` in Node and in headless Chromium.

Needs node and npm, which installs onnxruntime-node and onnxruntime-web, and for the page chromium.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

import slide_deploy
from slide_deploy import registry
from slide_deploy.artifacts.golden import load_golden
from slide_deploy.artifacts.manifest import find_manifest
from slide_deploy.parity.comparison import compare, pooled_ratios
from slide_deploy.parity.expectation import Expectation, with_operator_errors
from slide_deploy.parity.gates import GateKind
from slide_deploy.parity.systematic import systematic_ratios
from slide_deploy.quantization.catalog import scheme_named
from slide_deploy.report.receiver import handouts
from slide_deploy.verification.record import read_report

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

OWN = Path(__file__).parent / "web"
DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "slide_swin_digits.pth"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
MODEL = "slide_swin_digits.onnx"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the libraries from npm, the package, and what the scripts here read."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(OWN, folder, dirs_exist_ok=True)
    # Without their install scripts, which only fetch CUDA libraries.
    install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot install onnxruntime: {done.stderr.strip()[-200:]}")
    model = slide_deploy.with_preprocessing(slide_deploy.load(DIGITS), "auto")
    slide_deploy.export_and_verify(model, "onnx", folder, seed=1)
    cases = [
        {"name": name, "shape": value.shape, "data": value.ravel().tolist()}
        for expected in golden_vectors(folder)
        for name, value in expected.inputs.items()
    ]
    (folder / "cases.json").write_text(json.dumps(cases))
    page = (folder / "page.html").read_text().replace("MODEL", MODEL)
    (folder / "page.html").write_text(page)
    return folder


def golden_vectors(folder: Path) -> tuple[Expectation, ...]:
    manifest = find_manifest(folder)
    assert manifest
    found = load_golden(folder / manifest.artifacts[0].golden).expectations
    return with_operator_errors(found, registry.runtime("onnx").operator_errors)


def problems(expected: tuple[Expectation, ...], outputs: list[dict[str, Any]]) -> list[str]:
    """What the gates of float32 have against these outputs."""
    gates = scheme_named("float32").gates
    arrays = {
        e.probe: {
            name: np.float32(values).reshape(e.references[name].shape)
            for name, values in own.items()
        }
        for e, own in zip(expected, outputs, strict=True)
    }
    found = [
        f"{c.probe}: {c.problem}"
        for e in expected
        for c in compare(e, arrays[e.probe], gates, None)
        if c.problem
    ]
    over_all = {
        GateKind.POOLED_ERROR: pooled_ratios(expected, arrays),
        GateKind.SYSTEMATIC_ERROR: systematic_ratios(expected, arrays),
    }
    found += [
        f"{gate.kind} {ratio}"
        for gate in gates
        for ratio in over_all.get(gate.kind, {}).values()
        if not ratio <= gate.limit
    ]
    return found


@pytest.mark.parametrize("library", ["onnxruntime-node", "onnxruntime-web"])
def test_node_repeats_the_golden_vectors(site: Path, library: str) -> None:
    command = ["node", "node.mjs", library, MODEL, "cases.json"]
    done = subprocess.run(
        command, cwd=site, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    expected, outputs = golden_vectors(site), json.loads(done.stdout)
    assert len(expected) > 3
    assert problems(expected, outputs) == []
    assert len(problems(expected, [*outputs[1:], outputs[0]])) >= len(expected)


class Site(SimpleHTTPRequestHandler):
    """Serves a folder; what the page sends goes to `results`."""

    results: Queue[dict[str, Any]] = Queue()

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.results.put(json.loads(self.rfile.read(length)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def in_chromium(site: Path) -> dict[str, Any]:
    """What the page found, with the example of the receiver's page run on a picture."""
    if CHROMIUM is None:
        pytest.skip(f"no browser found: none of {', '.join(BROWSERS)} is installed")
    manifest = find_manifest(site)
    assert manifest
    (page,) = handouts(manifest, read_report(site / "report.json"))
    code = dict(page.examples)["JavaScript"]
    assert code in (site / "slide_swin_digits.md").read_text(encoding="utf-8")
    (site / "example.js").write_text(code)
    Image.fromarray(picture(site)).save(site / "cat.png")
    with served(site) as address:
        return visit(f"{address}/page.html")


def picture(site: Path) -> np.ndarray:
    """Pixels of the model's size, all channels different."""
    manifest = find_manifest(site)
    assert manifest
    _, height, width, _ = manifest.artifacts[0].inputs[0].shape
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), np.uint8)


class served:
    """An HTTP server of a folder, at a free port of this machine."""

    def __init__(self, folder: Path) -> None:
        handler = partial(Site, directory=str(folder))
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)

    def __enter__(self) -> str:
        Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def visit(address: str) -> dict[str, Any]:
    """Open a page in headless Chromium; what it sends."""
    with tempfile.TemporaryDirectory() as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        browser = subprocess.Popen([str(CHROMIUM), *flags, address], **quiet)
        try:
            return Site.results.get(timeout=240)
        finally:
            browser.terminate()
            browser.wait(30)


def test_chromium_repeats_the_golden_vectors(site: Path, in_chromium: dict[str, Any]) -> None:
    assert "error" not in in_chromium, in_chromium["error"]
    assert "Headless" in in_chromium["agent"]
    expected, outputs = golden_vectors(site), in_chromium["outputs"]
    assert problems(expected, outputs) == []
    assert len(problems(expected, [*outputs[1:], outputs[0]])) >= len(expected)


def test_the_javascript_example_runs_in_chromium(site: Path, in_chromium: dict[str, Any]) -> None:
    """Through a canvas, on a picture of the model's size."""
    pixels = picture(site)[None]
    (passed,) = in_chromium["passed"]
    assert passed == {"type": "uint8", "data": pixels.ravel().tolist(), "shape": [*pixels.shape]}
    feeds = {"picture": {"image": pixels}}
    scores = slide_deploy.run_artifact(site / MODEL, feeds).outputs["picture"]["logits"]
    assert in_chromium["logged"] == [str(int(scores.argmax()))]
