"""The contract of every target."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

import slide_deploy
from slide_deploy import registry
from slide_deploy.artifacts.manifest import find_manifest
from slide_deploy.loading.checkpoint import sha256_of
from slide_deploy.loading.loader import Model
from slide_deploy.parity.comparison import NOISE_MULTIPLE
from slide_deploy.types import Options, Precision, Verdict
from slide_deploy.verification.record import Report
from slide_deploy.verification.runner import read_artifact

GOLDEN = Path(__file__).parents[1] / "golden"
TARGETS = registry.float_targets()
CHECKPOINTS = sorted(path.stem for path in GOLDEN.glob("*.pth"))

# What the code of all targets has in common is tested daily on the one that takes the least time.
DAILY = [pytest.param(t, marks=() if t == "openvino" else pytest.mark.slow) for t in TARGETS]
TWO = [pytest.param(t, marks=() if t in ("coreml", "onnx") else pytest.mark.slow) for t in TARGETS]

# Checkpoints of a whole model and of a lone module that every target is tested with daily, and
# those that differ from others in their container or a missing bias only.
SHARED = "micro_shifted_bare"
EVERYWHERE = (SHARED, "module_dat_default")
ALIKE = ("micro_ddp_noqkvbias", "micro_ema", "micro_official")


def golden_case(name: str, target: str) -> Any:
    daily = name in EVERYWHERE or (target == "onnx" and name not in ALIKE)
    return pytest.param(name, target, marks=() if daily else pytest.mark.slow)


@cache
def recorded(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as archive:
        return {key: archive[key] for key in ("x", "y32", "y64")}


@cache
def golden_model(name: str) -> Model:
    lone_module = name.startswith("module")
    height, width = recorded(name)["x"].shape[2:]
    size = (height, width) if lone_module else None
    return slide_deploy.load(GOLDEN / f"{name}.pth", image_size=size)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory):
    """Export a golden model once per name and options."""

    @cache
    def run(name: str, target: str, options: Options) -> tuple[Report, Path]:
        folder = tmp_path_factory.mktemp(f"{name}-{target}")
        model = golden_model(name)
        report = slide_deploy.export_and_verify(
            model, [target], folder, options, progress=lambda _: None
        )
        return report, folder / report.checks[0].path

    return run


@pytest.mark.parametrize(
    ("name", "target"), [golden_case(name, target) for name in CHECKPOINTS for target in TARGETS]
)
def test_golden_outputs_come_back_within_ten_times_the_recorded_noise(exported, name, target):
    vectors = recorded(name)
    report, artifact = exported(name, target, Options(batch=len(vectors["x"])))
    model = golden_model(name)
    feeds = {"golden": {model.inputs[0].name: vectors["x"]}}
    output = read_artifact(target, artifact, feeds).outputs["golden"][model.outputs[0].name]
    noise = np.abs(vectors["y32"] - vectors["y64"]).max()
    assert report.verdict is Verdict.PASS, report.checks
    assert np.abs(output - vectors["y64"]).max() <= NOISE_MULTIPLE * noise


@pytest.mark.parametrize("target", TARGETS)
def test_report_says_what_the_verdict_rests_on(exported, target):
    report, artifact = exported(SHARED, target, Options(batch=2))
    (check,) = report.checks
    assert check.target == target
    assert check.path == artifact.name
    assert check.size_bytes > 0
    assert check.fidelity in ("native", "interpreted")
    assert check.runtime
    assert check.ran_precision == "float32"
    assert check.operators
    assert 0 < check.noise_ratio < NOISE_MULTIPLE
    assert check.snr_db > 100
    assert len({c.probe for c in check.comparisons}) >= 4


@pytest.mark.parametrize("target", TARGETS)
def test_manifest_describes_the_artifact(exported, target):
    _, artifact = exported(SHARED, target, Options(batch=2))
    manifest = find_manifest(artifact.parent)
    record = manifest.entry(artifact)
    assert record.sha256 == sha256_of(artifact)
    assert [(s.name, s.shape, s.dtype) for s in record.inputs] == [
        ("image", (2, 3, 64, 64), "float32")
    ]
    assert [(s.name, s.shape, s.dtype) for s in record.outputs] == [("logits", (2, 10), "float32")]
    assert manifest.source.sha256 == golden_model(SHARED).source.sha256


@pytest.mark.parametrize("target", DAILY)
def test_reading_can_run_beside_a_converter_that_parses_source(exported, target, monkeypatch):
    """Python 3.11 may fail at parsing source in two threads at once: readers leave it alone."""
    _, artifact = exported(SHARED, target, Options(batch=2))
    feeds = {"golden": {"image": recorded(SHARED)["x"]}}
    with monkeypatch.context() as patch:
        parse = Mock(wraps=ast.parse)
        patch.setattr(ast, "parse", parse)
        assert read_artifact(target, artifact, feeds).outputs["golden"]
    assert not parse.called


@pytest.mark.parametrize("target", DAILY)
def test_a_free_batch_takes_any_batch(exported, target):
    report, artifact = exported(SHARED, target, Options(dynamic=True))
    assert report.verdict is Verdict.PASS, report.checks
    x = recorded(SHARED)["x"]
    feeds = {"one": {"image": x[:1]}, "two": {"image": x}}
    outputs = read_artifact(target, artifact, feeds).outputs
    np.testing.assert_allclose(outputs["two"]["logits"][:1], outputs["one"]["logits"], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_float16_may_have_a_free_batch(exported, target):
    options = Options(precision=Precision.FLOAT16, dynamic=True)
    report, _ = exported("module_dat_default", target, options)
    assert report.verdict is Verdict.PASS, report.checks


@pytest.mark.parametrize("target", DAILY)
def test_float16_is_judged_by_its_noise_power(exported, target):
    report, _ = exported(SHARED, target, Options(precision=Precision.FLOAT16))
    (check,) = report.checks
    assert report.verdict is Verdict.PASS, check.problems
    assert check.precision == Precision.FLOAT16
    assert check.other_precision == ()
    assert 40 < check.snr_db < 100
    full, _ = exported(SHARED, target, Options(batch=2))
    assert check.size_bytes < full.checks[0].size_bytes


@pytest.mark.parametrize("target", DAILY)
def test_an_artifact_is_verified_without_its_manifest(exported, target, tmp_path):
    _, artifact = exported("micro_ema", target, Options())
    alone = artifact.rename(tmp_path / artifact.name)
    try:
        report = slide_deploy.verify([alone], golden_model("micro_ema"), progress=lambda _: None)
    finally:
        alone.rename(artifact)
    assert report.verdict is Verdict.PASS, report.checks


@pytest.mark.parametrize("target", DAILY)
def test_an_artifact_of_other_weights_fails(exported, target):
    _, artifact = exported("micro_ema", target, Options())
    other = slide_deploy.load(GOLDEN / "micro_ema.pth", weights="model")
    (check,) = slide_deploy.verify([artifact], other, progress=lambda _: None).checks
    assert check.verdict is Verdict.FAIL
    assert any("was exported from micro_ema.pth (ema weights" in p for p in check.problems)
    assert any("times the rounding noise" in p for p in check.problems)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_exporting_again_replaces_the_artifact(target, tmp_path):
    for name in ("micro_ema", "micro_official"):
        model = golden_model(name)
        renamed = Model(**{**vars(model), "name": "same"})
        report = slide_deploy.export_and_verify(
            renamed, [target], tmp_path, progress=lambda _: None
        )
        assert report.verdict is Verdict.PASS, report.checks
    left = {path.name for path in tmp_path.iterdir()}
    (golden,) = (path.name for path in tmp_path.glob("same.golden-1-float32-*.npz"))
    pages = {"same.md", "report.html"}
    assert left == {report.checks[0].path, golden, "manifest.json", "report.json", *pages}
