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
from slide_deploy.evaluation.dataset import read_dataset
from slide_deploy.parity.comparison import Tolerance
from slide_deploy.parity.gates import GateKind
from slide_deploy.parity.probes import natural_image
from slide_deploy.pipeline import quantize
from slide_deploy.quantization import search
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

DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "slide_swin_digits.pth"

# The others differ in their number types and in the vendor's tool only.
DAILY, DAILY_TARGET = "w8a8", "onnx"
BY_TARGET = (("onnx", "w8a8"), ("openvino", "w8a8"), ("coreml", "w8"), ("qnn", "w8a16"))


def case(target: str, precision: str, *, daily: bool):
    missing = registry.missing_packages(registry.runtime(target).packages)
    marks = [
        pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} is not installed"),
        *([] if daily else [pytest.mark.slow]),
    ]
    return pytest.param(target, precision, marks=marks)


CASES = [case(*pair, daily=pair == (DAILY_TARGET, DAILY)) for pair in PAIRS]
EACH_TARGET = [case(*pair, daily=pair in BY_TARGET) for pair in PAIRS]
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


@pytest.fixture(scope="session")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> tuple[slide_deploy.Model, Path]:
    """The trained digits model with a channel of each norm 64 times as large, and as many times
    smaller weights in what reads it; and its calibration set."""
    model = slide_deploy.load(DIGITS)
    with torch.no_grad():
        for block in (block for layer in model.module.layers for block in layer.blocks):
            for norm, product in ((block.norm1, block.attn.qkv), (block.norm2, block.mlp.fc1)):
                norm.weight[5] *= 64
                norm.bias[5] *= 64
                product.weight[:, 5] /= 64
    folder = tmp_path_factory.mktemp("uneven")
    torch.save(model.module.state_dict(), folder / "uneven.pth")
    images = read_dataset("digits", model.inputs[0])
    np.save(folder / "digits.npy", np.stack([images.image(number) for number in range(64)]))
    return slide_deploy.load(folder / "uneven.pth"), folder / "digits.npy"


CALIBRATED = [case for case in CASES if scheme_named(case.values[1]).needs_calibration]


@pytest.mark.slow
@pytest.mark.parametrize(("target", "precision"), CALIBRATED)
def test_smoothing_is_a_part_of_the_program(uneven, target, precision, tmp_path):
    model, calibration = uneven
    plain, even = (
        slide_deploy.export_and_verify(
            *(model, target, tmp_path / f"{smooth:g}"),
            Options(precision=precision, calibration=calibration, smooth=smooth),
        ).checks[0]
        for smooth in (0.0, 0.5)
    )
    assert even.problems == ()
    assert even.cost[0].snr_db > plain.cost[0].snr_db + 10
    # Without a manifest, the artifact itself tells how it was made.
    made, alone = tmp_path / "0.5" / even.path, tmp_path / "alone" / even.path
    alone.parent.mkdir()
    (shutil.copytree if made.is_dir() else shutil.copy)(made, alone)
    policy = VerificationPolicy(precision=precision)
    report = slide_deploy.verify(alone, model, policy=policy, calibration=calibration)
    assert report.checks[0].problems == ()


@pytest.mark.parametrize(
    ("told", "problem"),
    [pytest.param("0.95", "weights", marks=pytest.mark.slow), ("-1", "strength")],
)
def test_another_strength_of_smoothing_than_told_is_noticed(
    model, calibration, told, problem, tmp_path
):
    import onnx

    options = Options(precision=DAILY, calibration=calibration, smooth=0.15)
    slide_deploy.export(model, DAILY_TARGET, tmp_path, options)
    proto = onnx.load(path := artifact_in(tmp_path))
    next(entry for entry in proto.metadata_props if entry.key == "smooth").value = told
    onnx.save(proto, path)
    report = slide_deploy.verify(path, model, calibration=calibration)
    (_, *problems) = report.checks[0].problems  # the first is the hash
    assert any(problem in own for own in problems), problems


@pytest.mark.slow
def test_settings_are_searched_for(uneven, tmp_path, monkeypatch):
    model, calibration = uneven
    monkeypatch.setattr(search_cache.platformdirs, "user_cache_dir", lambda _: str(tmp_path))
    options = Options(precision=DAILY, calibration=calibration, min_snr=38)
    report = slide_deploy.export_and_verify(model, DAILY_TARGET, tmp_path / "out", options)
    (check,) = report.checks
    assert (check.problems, check.verdict) == ((), Verdict.PASS)
    assert check.search.settings.keys() == {"smooth"}
    assert check.search.kept == ()
    assert check.search.trials[0].snr_db < 25 < 38 <= check.cost[0].snr_db


@pytest.mark.slow
def test_a_ratio_that_no_settings_reach_fails(model, calibration, tmp_path, monkeypatch):
    monkeypatch.setattr(search_cache.platformdirs, "user_cache_dir", lambda _: str(tmp_path))
    options = Options(precision="w8a8", calibration=calibration, min_snr=119)
    found = search.Search(119, ("a",), ("a",), 40.0, (search.Trial(("a",), 40.0),))
    monkeypatch.setattr(quantize, "search", lambda *_: found)
    monkeypatch.setattr(quantize, "parts_of", lambda *_: {"a": ()})
    report = slide_deploy.export_and_verify(model, DAILY_TARGET, tmp_path / "out", options)
    assert "no settings gave the 119 dB asked for: 40.0 dB" in report.checks[0].problems


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory, model) -> Path:
    """Labelled images, all of which the model classifies right."""
    rng = np.random.default_rng(7)
    images = np.stack([natural_image((3, *TINY.image_size), rng) for _ in range(20)])
    with torch.no_grad():
        labels = model.module(torch.from_numpy(images.astype(np.float32))).argmax(1).numpy()
    path = tmp_path_factory.mktemp("labelled") / "images.npz"
    np.savez(path, images=images.astype(np.float32), labels=labels)
    return path


@pytest.mark.slow
def test_the_accuracy_on_labelled_images_is_judged(model, calibration, labelled, tmp_path):
    options = Options(precision=DAILY, calibration=calibration, data=labelled, max_drop=100)
    report = slide_deploy.export_and_verify(model, DAILY_TARGET, tmp_path / "a", options)
    (check,) = report.checks
    own = check.accuracy
    assert (check.problems, own.data, own.images) == ((), "images.npz", 20)
    assert own.reference_top1 == 100
    assert check.search.min_top1 == 0
    assert check.search.top1 == own.top1
    wrong = tmp_path / "wrong.npz"
    with np.load(labelled) as content:
        np.savez(wrong, images=-content["images"], labels=content["labels"])
    options = Options(data=wrong, max_drop=0)
    report = slide_deploy.export_and_verify(model, DAILY_TARGET, tmp_path / "b", options)
    assert report.checks[0].problems == ()  # the checkpoint is as wrong


@pytest.mark.slow
def test_an_accuracy_below_the_limit_fails(model, labelled, tmp_path):
    from slide_deploy.pipeline.labelled import labelled_images, with_accuracy

    report = slide_deploy.export_and_verify(model, DAILY_TARGET, tmp_path)
    images = labelled_images(model, Options(data=labelled), lambda step: None)
    better = replace(images, top1=images.top1_of(artifact_in(tmp_path)) + 2)
    about = (artifact_in(tmp_path), better)
    check = with_accuracy(report.checks[0], *about, 1.5, lambda step: None)
    assert check.verdict is Verdict.FAIL
    assert "2.00 points below the checkpoint's (limit: 1.5)" in check.problems[0]
    assert with_accuracy(report.checks[0], *about, 2.5, lambda step: None).problems == ()


@pytest.mark.slow
def test_the_cost_on_other_images_is_judged(exported, model, calibration):
    report, folder = exported(DAILY_TARGET, DAILY)
    rng = np.random.default_rng(9)
    images = [natural_image((3, *TINY.image_size), rng).astype(np.float32) for _ in range(5)]
    given = {"calibration": calibration, "images": images}
    sound, strict = (
        slide_deploy.verify(folder, model, policy=VerificationPolicy(tolerance), **given)
        for tolerance in (None, Tolerance(1e-9, 0))
    )
    (check,), (failed,) = sound.checks, strict.checks
    assert report.checks[0].held_out == ()
    assert check.problems == ()
    assert check.held_out[0].top1_decided == 5
    assert 10 < check.held_out[0].snr_db != check.cost[0].snr_db
    assert any("on the images of --images: probe sample" in own for own in failed.problems)


@pytest.mark.parametrize("target", registry.target_names())
@pytest.mark.parametrize("precision", ["w8", "w8a16", "w8a8"])
def test_a_target_that_lacks_a_precision_says_why(target: str, precision: str):
    if (target, precision) in PAIRS:
        return
    with pytest.raises(UsageError, match=f"does not support precision {precision}: ") as caught:
        options_by_target([target], Options(precision=precision))
    assert "its exporter does not write it" not in str(caught.value)
    assert caught.value.hint
