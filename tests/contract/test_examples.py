"""The usage examples of every target, run as the page shows them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import slide_deploy
from slide_deploy import Model, registry
from slide_deploy.artifacts.manifest import find_manifest
from slide_deploy.packaging.preprocessing import fit, load_image, preset
from slide_deploy.report.receiver import Handout, handouts
from slide_deploy.verification.record import read_report
from tests.tiny import TINY

LABELS = ("cat", "a dog", "Köter")
WAY = preset("imagenet", TINY.image_size)
IN_PYTHON = [
    target
    for target in registry.float_targets()
    if any(e.language == "Python" for e in registry.exporter(target).examples)
]


@pytest.fixture(scope="module")
def packages(tmp_path_factory, make_model, training_config) -> Path:
    """Artifacts of every target with Python examples that take pictures, beside cat.jpg."""
    folder = tmp_path_factory.mktemp("packages")
    path = folder / "tiny.pth"
    torch.save({"model": make_model().state_dict(), "config": training_config(TINY)}, path)
    model: Model = slide_deploy.with_preprocessing(slide_deploy.load(path), WAY)
    slide_deploy.export_and_verify(replace(model, labels=LABELS), IN_PYTHON, folder, seed=1)
    pixels = np.random.default_rng(3).integers(0, 256, (9, 6, 3), np.uint8)
    Image.fromarray(pixels).resize((45, 70)).save(folder / "cat.jpg")
    return folder


def handout(folder: Path, target: str) -> tuple[str, Handout]:
    manifest = find_manifest(folder)
    assert manifest is not None
    path = next(own.path for own in manifest.artifacts if own.target == target)
    found = handouts(manifest, read_report(folder / "report.json"))
    return path, next(own for own in found if own.path == path)


@pytest.mark.parametrize("target", IN_PYTHON)
def test_the_python_example_computes_what_the_artifact_does(target, packages) -> None:
    path, page = handout(packages, target)
    code = dict(page.examples)["Python"]
    assert code in (packages / "tiny.md").read_text(encoding="utf-8")
    shown = f"{code}\nprint(json.dumps(result.tolist()))"
    run = [sys.executable, "-W", "ignore", "-c", shown]
    done = subprocess.run(run, cwd=packages, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    label, scores = done.stdout.strip().splitlines()[-2:]
    pixels = fit(WAY, load_image(packages / "cat.jpg"))[None]
    feeds = {"right": {"image": pixels}, "shifted": {"image": np.roll(pixels, 1, axis=1)}}
    outputs = slide_deploy.run_artifact(packages / path, feeds).outputs
    expected = outputs["right"]["logits"]
    np.testing.assert_allclose(json.loads(scores), expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(outputs["shifted"]["logits"], expected, rtol=1e-2)
    assert label == LABELS[int(expected.argmax())]


# What the page finds in a browser, with each pixel's place as its colour.
BROWSER = """
const picture = {};
globalThis.OffscreenCanvas = class {
  constructor(width, height) { this.size = [width, height]; }
  getContext() {
    const [width, height] = this.size;
    const data = new Uint8ClampedArray(width * height * 4).map((_, place) => place % 251);
    return {drawImage() {}, getImageData: () => ({data})};
  }
};
globalThis.ort = {
  Tensor: class { constructor(type, data, shape) { Object.assign(this, {type, data, shape}); } },
  InferenceSession: {create: async path => ({run: async feeds => {
    const {type, data, shape} = feeds.image;
    console.log(JSON.stringify([path, type, data.constructor.name, Array.from(data), shape]));
    return {logits: {data: Float32Array.from([0.5, 2.5, 1])}};
  }})},
};
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_javascript_example_passes_pixels_without_alpha(packages) -> None:
    path, page = handout(packages, "onnx")
    code = BROWSER + dict(page.examples)["JavaScript"]
    run = ["node", "--input-type=module", "--eval", code]
    done = subprocess.run(run, capture_output=True, encoding="utf-8", check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    passed, best = done.stdout.strip().splitlines()
    height, width = TINY.image_size
    rgba = (np.arange(height * width * 4) % 251).reshape(-1, 4)
    assert json.loads(passed) == [
        path,
        "uint8",
        "Uint8Array",
        rgba[:, :3].ravel().tolist(),
        [1, height, width, 3],
    ]
    assert best == "1"
