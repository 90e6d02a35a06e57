"""Custom models are exported and verified, and merged modules are reported."""

from __future__ import annotations

import gc
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slide_deploy import registry
from slide_deploy.artifacts.manifest import find_manifest
from slide_deploy.parity.comparison import NOISE_MULTIPLE
from slide_deploy.verification.record import read_report
from slide_deploy.verification.runner import read_artifact

HERE, GOLDEN = Path(__file__).parent, Path(__file__).parents[1] / "golden"
TARGETS = registry.float_targets()


@pytest.fixture
def theirs(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The user's module, importable from the current folder as theirs would be."""
    name = "foreign_models"
    (in_tmp / f"{name}.py").write_text((HERE / f"{name}.py").read_text())
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location(name, in_tmp / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def export(run_cli: Any, factory: str, weights: Path, shape: str, *targets: str) -> Any:
    chosen = [word for target in targets for word in ("-t", target)]
    given = ("--model", f"foreign_models:{factory}", "--input", f"image:{shape}")
    return run_cli("export", weights, *given, *chosen, "-o", "out")


def trained(module: torch.nn.Module, scrambled: Any) -> Path:
    """Weights of a model that somebody trained: none of them neutral."""
    scrambled(module)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(generator=torch.Generator().manual_seed(1))
    torch.save(module.state_dict(), "theirs.pth")
    return Path("theirs.pth")


def pairs() -> list[str]:
    manifest = find_manifest(Path("out"))
    assert manifest
    assert manifest.model["family"] == "custom"
    return list(manifest.model["config"]["shift_pairs"])


RECOGNISED = "recognised as Slide Attention and lowered"
PARTNERS = {
    "default": "dep_conv + dep_conv1",
    "shareqkv": "dep_conv + dep_conv1",
    "unshared_k5": "dep_conv + dep_conv1 and dep_conv + dep_conv2",
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", PARTNERS)
def test_the_golden_dat_modules_come_back_within_their_noise(
    variant: str, theirs: Any, run_cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with np.load(GOLDEN / f"module_dat_{variant}.npz") as archive:
        vectors = {key: archive[key] for key in archive.files}
    monkeypatch.setenv("DAT_ARGUMENTS", str(vectors["kwargs"]))
    x, weights = vectors["x"], GOLDEN / f"module_dat_{variant}.pth"
    shape = "x".join(map(str, (1, *x.shape[1:])))
    done = export(run_cli, "golden_dat", weights, shape, *TARGETS)
    assert done.code == 0, done.out + done.err
    (pair,) = pairs()
    assert pair.startswith(f"the module: {RECOGNISED}, {PARTNERS[variant]} merged")
    noise = np.abs(vectors["y32"] - vectors["y64"]).max()
    for check in read_report(Path("out/report.json")).checks:
        assert check.verdict == "pass", check.problems
        assert [layer.layer for layer in check.lowering] == ["attention"]
        feeds = {str(i): {"image": x[i : i + 1]} for i in range(len(x))}
        outputs = read_artifact(check.target, Path("out", check.path), feeds).outputs
        found = np.concatenate([outputs[key]["output"] for key in feeds])
        assert np.abs(found - vectors["y64"]).max() <= NOISE_MULTIPLE * noise


# coremltools leaves a temporary folder to the garbage collector where it fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_is_not_recognised_keeps_its_rank_six_which_core_ml_refuses(
    theirs: Any, run_cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = {"dim": 64, "num_heads": 4, "ka": 3, "dim_reduction": 4}
    monkeypatch.setenv("DAT_ARGUMENTS", json.dumps(arguments))
    weights = GOLDEN / "module_dat_default.pth"
    done = export(run_cli, "cosine_dat", weights, "1x64x6x7", "coreml", "torchscript")
    coreml, script = read_report(Path("out/report.json")).checks
    assert done.code == 1
    assert script.verdict == "pass"
    assert coreml.verdict == "fail"
    assert "only supports tensors with rank <= 5" in coreml.problems[0]
    whole, pair = pairs()
    assert whole == (
        "the module: left, it has the parameters of Slide Attention, but computes something else"
    )
    assert pair.startswith("dep_conv + dep_conv1: fused")
    gc.collect()


@pytest.mark.slow
def test_a_detector_is_merged_and_proven_on_every_target(
    theirs: Any, run_cli: Any, scrambled: Any
) -> None:
    weights = trained(theirs.Detector(), scrambled)
    done = export(run_cli, "Detector", weights, "1x3x32x24", *TARGETS)
    assert done.code == 0, done.out + done.err
    told = f"mixer: {RECOGNISED}"
    assert [pair.partition(",")[0] for pair in pairs()] == [told]
    assert f"note: {told}" in done.out.replace("\n", " ")
    for check in read_report(Path("out/report.json")).checks:
        assert [layer.layer for layer in check.lowering] == ["mixer.attention"]
        assert {c.output for c in check.comparisons} == {"p3", "p4"}


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--dynamic"], ["--half"]])
def test_a_detector_takes_the_usual_options(
    theirs: Any, run_cli: Any, scrambled: Any, options: list[str]
) -> None:
    weights = trained(theirs.Detector(), scrambled)
    given = ("--model", "foreign_models:Detector", "--input", "image:1x3x16x16")
    targets = ("-t", "torchscript", "-t", "onnx")
    done = run_cli("export", weights, *given, *targets, *options, "-o", "out")
    assert done.code == 0, done.out + done.err


@pytest.mark.slow
def test_a_segmenter_on_our_features_is_lowered_as_its_backbone_would_be(
    theirs: Any, run_cli: Any, scrambled: Any
) -> None:
    weights = trained(theirs.Segmenter(), scrambled)
    done = export(run_cli, "Segmenter", weights, "1x3x32x32", "onnx", "coreml")
    assert done.code == 0, done.out + done.err
    assert [pair.partition(": ")[0] for pair in pairs()] == [
        "backbone.block1.0.attn",
        "backbone.block2.0.attn",
    ]
    manifest = find_manifest(Path("out"))
    assert manifest
    assert all(len(artifact.lowering) == 2 for artifact in manifest.artifacts)


def test_what_cannot_be_merged_is_exported_as_it_is_and_said_so(
    theirs: Any, run_cli: Any, scrambled: Any
) -> None:
    weights = trained(theirs.unfusable_detector(), scrambled)
    done = export(run_cli, "unfusable_detector", weights, "1x3x16x16", "onnx", "torchscript")
    assert done.code == 0, done.out + done.err
    whole, pair = pairs()
    assert whole.startswith("mixer: left, it has the parameters of Slide Attention")
    assert pair.startswith("mixer.warps + mixer.rolls: left, mixer.warps has another padding_mode")
    assert "has another padding_mode" in " ".join(done.out.split())
