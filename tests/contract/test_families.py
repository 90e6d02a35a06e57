"""The contract of every family on every target, with a classifier and with feature maps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import slide_deploy
from slide_deploy import registry
from slide_deploy.artifacts.manifest import find_manifest
from slide_deploy.errors import UsageError
from slide_deploy.loading.loader import Model
from slide_deploy.models.families import families
from slide_deploy.models.family import block_names
from slide_deploy.models.slide_cswin import SlideCSwin, SlideCSwinConfig
from slide_deploy.models.slide_nat import SlideNat, SlideNatConfig
from slide_deploy.models.slide_pvt import SlidePvt, SlidePvtConfig
from slide_deploy.models.slide_pvt_v2 import SlidePvtV2, SlidePvtV2Config
from slide_deploy.models.slide_swin import SlideSwin, SlideSwinConfig
from slide_deploy.parity.block_trace import BlockReference
from slide_deploy.pipeline.reference import reference_of
from slide_deploy.types import Precision, Verdict
from slide_deploy.verification.record import Check
from slide_deploy.verification.runner import read_artifact

TARGETS = registry.float_targets()
GOLDEN = Path(__file__).parents[1] / "golden"

# The command line treats targets alike: one of them is enough for each commit.
QUICK = [t if t == "openvino" else pytest.param(t, marks=pytest.mark.slow) for t in TARGETS]


@dataclass(frozen=True)
class Small:
    """A family's smallest model that still has both of its kinds of attention.

    Eight channels at least: a LayerNorm over two or three divides by what may be next to
    nothing, and its rounding noise is then a matter of luck, another on each processor.
    """

    build: Callable[[], nn.Module]
    size: tuple[int, int]
    maps: tuple[tuple[int, int, int], ...]


PYRAMID: Mapping[str, Any] = {
    "image_size": (32, 32),
    "embed_dims": (8, 16, 24, 32),
    "depths": (1, 1, 1, 1),
    "heads": (1, 2, 3, 4),
    "mlp_ratios": (2.0, 2.0, 1.5, 1.0),
    "sr_ratios": (1, 1, 2, 1),
    "slide_stages": 2,
    "num_classes": 3,
}
PYRAMID_MAPS = ((8, 8, 8), (16, 4, 4), (24, 2, 2), (32, 1, 1))

SMALL: Mapping[str, Small] = {
    "slide-swin": Small(
        lambda: SlideSwin(
            SlideSwinConfig(
                image_size=(32, 32),
                embed_dim=8,
                depths=(1, 1, 2, 1),
                heads=(1, 1, 2, 2),
                slide_stages=2,
                window_size=2,
                num_classes=3,
                patch_size=2,
            )
        ),
        (32, 32),
        ((8, 16, 16), (16, 8, 8), (32, 4, 4), (64, 2, 2)),
    ),
    "slide-pvt": Small(
        lambda: SlidePvt(SlidePvtConfig(position_size=(32, 32), **PYRAMID)),
        (32, 32),
        PYRAMID_MAPS,
    ),
    "slide-pvt-v2": Small(lambda: SlidePvtV2(SlidePvtV2Config(**PYRAMID)), (32, 32), PYRAMID_MAPS),
    # The published stripes are what a bare state dict is read with: they tile no smaller maps.
    "slide-cswin": Small(
        lambda: SlideCSwin(
            SlideCSwinConfig(
                image_size=(112, 112),
                embed_dim=8,
                depths=(1, 1, 1, 1),
                heads=(1, 2, 4, 8),
                slide_stages=1,
                num_classes=3,
            )
        ),
        (112, 112),
        ((8, 28, 28), (16, 14, 14), (32, 7, 7), (64, 4, 4)),
    ),
    "slide-nat": Small(
        lambda: SlideNat(
            SlideNatConfig(
                image_size=(32, 32),
                embed_dim=8,
                depths=(1, 1, 1, 1),
                heads=(1, 2, 2, 4),
                slide_stages=1,
                num_classes=3,
                neighborhood=3,
            )
        ),
        (32, 32),
        ((8, 8, 8), (16, 4, 4), (32, 2, 2), (64, 1, 1)),
    ),
}
KINDS = {"classification": False, "features": True}

# The maps of the others differ in their shapes only.
WITH_MAPS = ("slide-nat",)
MAPS = [pytest.param(f, marks=() if f in WITH_MAPS else pytest.mark.slow) for f in SMALL]
FAMILY_KINDS = [
    *((family, "classification") for family in SMALL),
    *(pytest.param(*case.values, "features", marks=case.marks) for case in MAPS),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, scrambled) -> Callable[[str], Path]:
    """A family's small model as a bare state dict on disk."""

    @cache
    def save(family: str) -> Path:
        path = tmp_path_factory.mktemp("weights") / f"{family}.pth"
        torch.save(scrambled(SMALL[family].build()).state_dict(), path)
        return path

    return save


@pytest.fixture(scope="module")
def loaded(checkpoint) -> Callable[[str, bool], Model]:
    @cache
    def read(family: str, features: bool) -> Model:
        return slide_deploy.load(
            checkpoint(family), image_size=SMALL[family].size, features=features
        )

    return read


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, loaded):
    """One run per family and kind, to all targets at once: the reference runs only once."""

    @cache
    def run(family: str, features: bool) -> tuple[dict[str, Check], Path]:
        folder = tmp_path_factory.mktemp(family)
        report = slide_deploy.export_and_verify(
            loaded(family, features), TARGETS, folder, progress=lambda _: None
        )
        return {check.target: check for check in report.checks}, folder

    return run


def test_no_family_is_left_out() -> None:
    heads = {family.name for family in families() if family.name != "slide-module"}
    assert set(SMALL) <= heads


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("family", "kind"), FAMILY_KINDS)
def test_every_family_is_proved_on_every_target(exported, family, target, kind) -> None:
    checks, folder = exported(family, KINDS[kind])
    check = checks[target]
    outputs = {f"stage{n}" for n in (1, 2, 3, 4)} if KINDS[kind] else {"logits"}
    assert check.verdict is Verdict.PASS, check.problems
    assert not check.custom_operators
    assert {c.output for c in check.comparisons} == outputs
    assert len({c.probe for c in check.comparisons}) * len(outputs) == len(check.comparisons)
    assert (folder / check.path).exists()


@pytest.mark.parametrize("family", MAPS)
def test_stage_maps_have_their_real_shapes_in_model_and_manifest(exported, loaded, family) -> None:
    wanted = [(f"stage{n}", (1, *s)) for n, s in enumerate(SMALL[family].maps, start=1)]
    assert [(spec.name, spec.shape) for spec in loaded(family, True).outputs] == wanted
    manifest = find_manifest(exported(family, True)[1])
    assert manifest.model["features"] is True
    assert len(manifest.artifacts) == len(TARGETS)
    for artifact in manifest.artifacts:
        assert [(spec.name, spec.shape) for spec in artifact.outputs] == wanted
    assert find_manifest(exported(family, False)[1]).model["features"] is False


@pytest.mark.parametrize("target", QUICK)
def test_an_artifact_of_the_classifier_is_not_one_of_the_maps(exported, loaded, target) -> None:
    checks, folder = exported("slide-pvt-v2", False)
    model = loaded("slide-pvt-v2", True)
    report = slide_deploy.verify([folder / checks[target].path], model, progress=lambda _: None)
    assert report.verdict is Verdict.FAIL
    assert any("outputs are named logits" in p for p in report.checks[0].problems)


@pytest.mark.parametrize("family", SMALL)
def test_blocks_keep_the_names_of_the_model(loaded, family) -> None:
    plain, maps = loaded(family, False).module, loaded(family, True).module
    assert block_names(maps) == block_names(plain)
    assert maps.state_dict().keys() == plain.state_dict().keys()


def test_maps_are_traced_block_by_block(loaded) -> None:
    model = loaded("slide-swin", True)
    x = np.zeros((1, 3, 32, 32), np.float32)
    blocks = reference_of(model, lambda _: None).blocks({"image": x}, Precision.FLOAT32)
    assert all(isinstance(block, BlockReference) for block in blocks)
    assert {"layers.0.blocks.0.attn", "layers.3.blocks.0.mlp"} <= {block.block for block in blocks}


def test_one_wrong_map_fails_by_its_name(exported, loaded) -> None:
    checks, folder = exported("slide-nat", True)
    model = loaded("slide-nat", True)
    changed = slide_deploy.Model(**{**vars(model), "module": _shifted(model.module)})
    report = slide_deploy.verify(
        [folder / checks["torchscript"].path], changed, progress=lambda _: None
    )
    wrong = {c.output for c in report.checks[0].comparisons if c.problem}
    assert report.verdict is Verdict.FAIL
    assert wrong == {"stage3"}


def _shifted(module: nn.Module) -> nn.Module:
    class Shifted(type(module)):
        def forward(self, x):
            maps = self.forward_features(x)
            return (*maps[:2], maps[2] + 1e-2, *maps[3:])

    changed = copy.copy(module)
    changed.__class__ = Shifted
    return changed


def test_a_model_without_stages_says_so() -> None:
    with pytest.raises(UsageError, match=r"module_dat_default\.pth has no stages") as refused:
        slide_deploy.load(GOLDEN / "module_dat_default.pth", image_size=(14, 14), features=True)
    assert "--features" in refused.value.hint


@pytest.mark.usefixtures("default_lowerings")
@pytest.mark.parametrize("target", QUICK)
def test_the_command_line_exports_and_verifies_maps(run_cli, in_tmp, checkpoint, target) -> None:
    path = checkpoint("slide-pvt-v2")
    size = ("--image-size", "32")
    done = run_cli("export", "-t", target, "--features", *size, path)
    assert done.code == 0, done.err + done.out
    folder = in_tmp / "slide-pvt-v2-features-deploy"
    assert run_cli("verify", folder).code == 0
    assert run_cli("verify", folder, "--against", path, "--features", *size).code == 0
    assert run_cli("verify", folder, "--against", path, *size).code == 1
    (artifact,) = find_manifest(folder).artifacts
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    outputs = read_artifact(target, folder / artifact.path, {"x": {"image": x}}).outputs["x"]
    assert [outputs[f"stage{n}"].shape[1:] for n in (1, 2, 3, 4)] == list(PYRAMID_MAPS)
