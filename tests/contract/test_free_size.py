"""Free height and width are verified at another size on every target, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import slide_deploy
from slide_deploy import registry
from slide_deploy.artifacts.manifest import find_manifest
from slide_deploy.fusion.branches import fuse
from slide_deploy.loading.loader import Model
from slide_deploy.lowering.catalog import lowerings
from slide_deploy.lowering.replacement import always, lower
from slide_deploy.models.slide_pvt_v2 import SlidePvtV2, SlidePvtV2Config
from slide_deploy.reference.run import run_module
from slide_deploy.types import Options, Verdict
from slide_deploy.utils.quiet import quiet
from slide_deploy.verification.judge import VerificationPolicy
from slide_deploy.verification.recorded import verify_recorded
from slide_deploy.verification.runner import read_artifact

GOLDEN = Path(__file__).parents[1] / "golden"
LONE = GOLDEN / "module_dat_default.pth"
TARGETS = registry.float_targets()

V2 = SlidePvtV2Config(
    image_size=(64, 64),
    embed_dims=(2, 4, 4, 4),
    depths=(1, 1, 1, 1),
    heads=(1, 2, 2, 2),
    mlp_ratios=(1.0, 1.0, 1.0, 1.0),
    sr_ratios=(1, 1, 2, 1),
    slide_stages=2,
    num_classes=0,
)


def lone(size: tuple[int, int] = (8, 12)) -> Model:
    return slide_deploy.load(LONE, image_size=size)


def silent(_: str) -> None:
    pass


@pytest.mark.slow
def test_every_target_takes_any_size(tmp_path: Path) -> None:
    model = lone()
    options = Options(dynamic_size=True)
    report = slide_deploy.export_and_verify(model, TARGETS, tmp_path, options, progress=silent)
    x = np.random.default_rng(0).standard_normal((1, 64, 20, 8)).astype(np.float32)
    expected = run_module(model.module, model.outputs, {"features": x})["attended"]
    for check in report.checks:
        assert check.verdict is Verdict.PASS, check.problems
        assert [layer.form for layer in check.lowering] == ["depthwise"]
        assert "normal, 12x20" in (check.probes or {})
        made = read_artifact(check.target, tmp_path / check.path, {"x": {"features": x}})
        np.testing.assert_allclose(made.outputs["x"]["attended"], expected, atol=1e-4)
    manifest = find_manifest(tmp_path)
    assert manifest
    for record in manifest.artifacts:
        assert record.inputs[0].shape == (1, 64, "height", "width")
        assert record.outputs[0].shape == (1, 64, "attended_height", "attended_width")
    # By the golden vectors beside them, and by the model without their manifest.
    assert verify_recorded([tmp_path], VerificationPolicy(), silent).verdict is Verdict.PASS
    script = tmp_path / "module_dat_default.torchscript"
    (tmp_path / "manifest.json").unlink()
    assert slide_deploy.verify([script], model, progress=silent).verdict is Verdict.PASS


@pytest.mark.parametrize("features", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_model_of_global_attention_without_positions_takes_any_size(
    features: bool, tmp_path: Path, scrambled: Any
) -> None:
    torch.save(scrambled(SlidePvtV2(V2)).state_dict(), tmp_path / "v2.pth")
    model = slide_deploy.load(tmp_path / "v2.pth", image_size=(64, 64), features=features)
    options = Options(dynamic_size=True, dynamic=True)
    report = slide_deploy.export_and_verify(
        model, ["torchscript"], tmp_path / "out", options, progress=silent
    )
    (check,) = report.checks
    assert check.verdict is Verdict.PASS, check.problems
    names = ["normal, batch of 3", "normal, 96x128", "fresh normal, batch of 8"]
    assert {*names, "fresh normal, 64x64"} <= (check.probes or {}).keys()


def test_an_artifact_that_only_claims_a_free_size_fails(tmp_path: Path) -> None:
    """One made for a size, dressed up as one for any."""
    model = lone()
    options = Options(dynamic_size=True)
    slide_deploy.export_and_verify(model, ["torchscript"], tmp_path, options, progress=silent)
    path = tmp_path / "module_dat_default.torchscript"
    about = {"slide_deploy.json": ""}
    with quiet():
        torch.jit.load(path, _extra_files=about)
    fixed, _ = lower(fuse(model.module), model.inputs, always("flat"))
    with torch.no_grad(), quiet():
        traced = torch.jit.freeze(torch.jit.trace(fixed, torch.randn(1, 64, 8, 12)))
        torch.jit.save(traced, path, _extra_files=about)
    (tmp_path / "manifest.json").unlink()
    (check,) = slide_deploy.verify([path], model, progress=silent).checks
    assert check.verdict is Verdict.FAIL
    assert "'normal, 12x20'" in check.problems[0]


REFUSED = [
    ("micro_official", "layers.2.blocks.0.attn attends in windows that are cut for one map"),
    ("micro_k5_ape", "the model holds position embeddings of one map"),
]


@pytest.mark.parametrize(("name", "why"), REFUSED)
def test_what_fixes_the_size_is_named(name: str, why: str, run_cli: Any, in_tmp: Path) -> None:
    done = run_cli("export", GOLDEN / f"{name}.pth", "-t", "onnx", "--dynamic-size", "-o", "out")
    done.refused(2, f"height and width cannot be free: {why}", "omit --dynamic-size")
    assert not (in_tmp / "out").exists()


def test_a_form_made_for_one_size_is_refused(run_cli: Any, in_tmp: Path) -> None:
    given = (LONE, "--image-size", "8x12", "-t", "onnx", "--dynamic-size", "--lowering", "flat")
    run_cli("export", *given).refused(
        2, "the lowering flat needs maps of fixed height and width", "use depthwise"
    )


def test_every_form_for_any_size_is_one() -> None:
    model = lone()
    free = [lowering.name for lowering in lowerings() if lowering.any_size]
    assert free == ["depthwise"]
    module, _ = lower(fuse(model.module), model.inputs, always(free[0]))
    with quiet():
        traced = torch.jit.trace(module, torch.randn(1, 64, 8, 12), check_trace=False)
    x = torch.randn(1, 64, 6, 5)
    torch.testing.assert_close(traced(x), module(x))
