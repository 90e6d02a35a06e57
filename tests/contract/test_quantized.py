"""The contract of every quantized precision of every target."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import slide_deploy
from slide_deploy import registry
from slide_deploy.artifacts import search_cache
from slide_deploy.artifacts.manifest import find_manifest
from slide_deploy.artifacts.options import options_by_target
from slide_deploy.errors import UsageError
from slide_deploy.parity.gates import GateKind
from slide_deploy.parity.probes import natural_image
from slide_deploy.quantization.catalog import scheme_named
from slide_deploy.quantization.scheme import same_width
from slide_deploy.types import Options, Verdict
from slide_deploy.verification.judge import VerificationPolicy
from tests.tiny import TINY

PAIRS = [
    (target, precision)
    for target in registry.target_names()
    for precision in registry.exporter(target).precisions
    if scheme_named(precision).quantized
]

# The others differ in their number types and in the vendor's tool only.
DAILY, DAILY_TARGET = "w8a8", "onnx"


def case(target: str, precision: str, *, daily: bool):
    missing = registry.missing_packages(registry.runtime(target).packages)
    marks = [
        pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} is not installed"),
        *([] if daily else [pytest.mark.slow]),
    ]
    return pytest.param(target, precision, marks=marks)


CASES = [case(*pair, daily=pair == (DAILY_TARGET, DAILY)) for pair in PAIRS]
EACH_TARGET = [case(*pair, daily=pair[1] == DAILY) for pair in PAIRS]
FROM_FLOAT = [c for c in CASES if c.values[0] in registry.float_targets()]


def calibration_file(path: Path, seed: int, count: int = 32) -> Path:
    rng = np.random.default_rng(seed)
    images = [natural_image((3, *TINY.image_size), rng) for _ in range(count)]
    np.save(path, np.stack(images).astype(np.float32))
    return path


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, make_model, training_config):
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pth"
    content = {"model": make_model().state_dict(), "config": training_config(TINY)}
    torch.save(content, path)
    return slide_deploy.load(path)


@pytest.fixture(scope="session")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return calibration_file(tmp_path_factory.mktemp("calibration") / "real.npy", seed=1)


@pytest.fixture(scope="session")
def exported(
    tmp_path_factory: pytest.TempPathFactory, calibration: Path, model: slide_deploy.Model
):
    """Export once per target and precision."""

    @cache
    def run(target: str, precision: str) -> tuple[slide_deploy.Report, Path]:
        folder = tmp_path_factory.mktemp(f"{precision}-{target}")
        options = Options(precision=precision, calibration=calibration)
        report = slide_deploy.export_and_verify(model, target, folder, options)
        return report, folder

    return run


def artifact_in(folder: Path) -> Path:
    manifest = find_manifest(folder)
    assert manifest is not None
    return folder / manifest.artifacts[0].path


@pytest.mark.parametrize(("target", "precision"), EACH_TARGET)
def test_the_program_and_the_cost_are_judged(exported, model, calibration, target, precision):
    report, folder = exported(target, precision)
    (check,) = report.checks
    assert check.problems == ()
    assert check.verdict is Verdict.PASS
    assert check.precision == precision
    assert same_width(check.weight_type, "int8")
    activations = scheme_named(precision).activations
    made_from = registry.exporter(target).quantized_from
    assert same_width(check.compute_type, made_from if activations == "float32" else activations)
    kinds = [result.kind for result in check.gates]
    assert kinds == [
        *(GateKind.RELATIVE_ERROR, GateKind.DISAGREEMENT, GateKind.QUANTIZATION),
        *(gate.kind for gate in scheme_named(made_from).gates),
    ]
    (cost,) = check.cost
    assert 15 < cost.snr_db < 90  # neither broken nor float32
    assert cost.top1_agreed >= 0.9 * cost.top1_decided > 20
    (record,) = find_manifest(folder).artifacts
    assert record.calibration == calibration.name
    assert len(record.calibration_sha256) == 64


@pytest.mark.parametrize(("target", "precision"), CASES)
def test_it_is_verified_against_the_checkpoint_and_its_calibration_set(
    exported, model, calibration, target, precision
):
    _, folder = exported(target, precision)
    report = slide_deploy.verify(folder, model, calibration=calibration)
    assert report.verdict is Verdict.PASS, report.checks[0].problems
    assert GateKind.QUANTIZATION in [result.kind for result in report.checks[0].gates]
    with pytest.raises(UsageError, match=r"was calibrated on real\.npy"):
        slide_deploy.verify(folder, model)


@pytest.mark.parametrize(("target", "precision"), CASES)
def test_without_the_checkpoint_the_cost_alone_is_judged(exported, target, precision):
    _, folder = exported(target, precision)
    report = slide_deploy.verify_golden(folder)
    (check,) = report.checks
    assert check.verdict is Verdict.PASS, check.problems
    assert "was not judged" in check.notes[0]
    assert [result.kind for result in check.gates] == ["relative_error", "disagreement"]


@pytest.mark.parametrize(("target", "precision"), CASES)
def test_a_limit_on_the_drop_is_a_gate(exported, target, precision):
    _, folder = exported(target, precision)
    policy = VerificationPolicy(max_drop=-1.0)  # what no artifact can keep
    report = slide_deploy.verify_golden(folder, policy)
    assert "(limit: -1 %)" in report.checks[0].problems[0]


@pytest.mark.parametrize(("target", "precision"), CASES)
def test_another_calibration_set_is_noticed(exported, model, target, precision, tmp_path):
    _, folder = exported(target, precision)
    artifact = artifact_in(folder)
    other = calibration_file(tmp_path / "other.npy", seed=2)
    report = slide_deploy.verify(artifact, model, calibration=other)
    problems = report.checks[0].problems
    assert problems[0].startswith("its metadata says that it was calibrated on real.npy")
    calibrated = scheme_named(precision).needs_calibration
    assert any("steps off" in p for p in problems) is calibrated


@pytest.mark.parametrize(("target", "precision"), CASES)
def test_an_artifact_of_another_checkpoint_is_noticed(
    exported, model, calibration, target, precision
):
    _, folder = exported(target, precision)
    own = model
    changed = type(own.module)(own.config).eval()
    changed.load_state_dict({k: 1.02 * v for k, v in own.module.state_dict().items()})
    report = slide_deploy.verify(
        artifact_in(folder), replace(own, module=changed), calibration=calibration
    )
    assert any("not the nearest integers" in problem for problem in report.checks[0].problems)


@pytest.mark.parametrize(("target", "precision"), FROM_FLOAT)
def test_a_float_artifact_does_not_pass_for_a_quantized_one(
    exported, model, target, precision, tmp_path
):
    _, folder = exported(target, precision)
    forged = tmp_path / "forged"
    shutil.copytree(folder, forged)
    artifact = artifact_in(forged)
    slide_deploy.export(model, target, tmp_path / "float32")
    if artifact.is_dir():
        shutil.rmtree(artifact)
        shutil.copytree(tmp_path / "float32" / artifact.name, artifact)
    else:
        shutil.copy(tmp_path / "float32" / artifact.name, artifact)
    report = slide_deploy.verify_golden(forged)
    assert f"the manifest says {precision}, the file is float32" in report.checks[0].problems


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(target, marks=pytest.mark.slow)
        for target, precision in PAIRS
        if precision == DAILY and registry.exporter(target).products is not None
    ],
)
def test_parts_stay_in_float_for_a_given_accuracy(
    exported, model, calibration, target, tmp_path, monkeypatch
):
    monkeypatch.setattr(search_cache.platformdirs, "user_cache_dir", lambda _: str(tmp_path))
    plain, _ = exported(target, DAILY)
    wanted = plain.checks[0].cost[0].snr_db + 2
    options = Options(precision=DAILY, calibration=calibration, min_snr=wanted)
    first, again = (
        slide_deploy.export_and_verify(model, target, tmp_path / name, options)
        for name in ("first", "again")
    )
    (check,), (repeated,) = first.checks, again.checks
    assert (check.problems, check.verdict) == ((), Verdict.PASS)
    assert 0 < len(check.search.kept) < len(check.search.parts)
    assert check.cost[0].snr_db >= wanted
    assert check.search.snr_db == pytest.approx(check.cost[0].snr_db, abs=0.1)
    assert len(check.other_precision) > len(plain.checks[0].other_precision)
    assert repeated.search == check.search
    assert slide_deploy.verify(tmp_path / "first", model, calibration=calibration).checks[0].search


@pytest.mark.parametrize("target", registry.target_names())
@pytest.mark.parametrize("precision", ["w8", "w8a16", "w8a8"])
def test_a_target_that_lacks_a_precision_says_why(target: str, precision: str):
    if (target, precision) in PAIRS:
        return
    with pytest.raises(UsageError, match=f"does not support precision {precision}: ") as caught:
        options_by_target([target], Options(precision=precision))
    assert "its exporter does not write it" not in str(caught.value)
    assert caught.value.hint
