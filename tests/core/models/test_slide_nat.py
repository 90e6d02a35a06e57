"""Slide-NAT: published sizes, public names, recognition from a bare state dict, export."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import slide_deploy
from slide_deploy.errors import AmbiguousModel, ArchitectureError
from slide_deploy.fusion.branches import fuse, fused_skeleton
from slide_deploy.loading.flops import count_flops
from slide_deploy.loading.inspection import count_parameters
from slide_deploy.models.neighborhood_attention import NeighborhoodAttention
from slide_deploy.models.slide_nat import (
    FAMILY,
    SlideNat,
    SlideNatConfig,
    slide_nat_mini,
    slide_nat_s,
    slide_nat_t,
)

TINY = SlideNatConfig(
    image_size=(36, 41),
    embed_dim=8,
    depths=(1, 2, 1, 1),
    heads=(1, 2, 2, 4),
    num_classes=5,
    neighborhood=3,
    mlp_ratio=2.0,
    layer_scale=True,
)


def tiny(**changes: Any) -> SlideNat:
    """A Slide-NAT with every trainable weight drawn at random."""
    model = SlideNat(dataclasses.replace(TINY, **changes)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
                parameter.add_(float("norm" in name and "weight" in name))
    return model


def image(model: SlideNat, batch: int = 2) -> Tensor:
    size = (batch, model.config.in_channels, *model.config.image_size)
    return torch.randn(size, generator=torch.Generator().manual_seed(1))


def saved(model: nn.Module, folder: Path, **others: Any) -> Path:
    path = folder / "model.pth"
    torch.save({"model": model.state_dict(), **others} if others else model.state_dict(), path)
    return path


def hidden_flops(model: SlideNat) -> int:
    """Products of the dense formulation that a window of k × k does not need."""
    total = 0
    for module in model.modules():
        if isinstance(module, NeighborhoodAttention):
            rows, columns = module.rows, module.columns
            done = module.tiles * rows.queries * columns.queries * rows.keys * columns.keys
            needed = rows.size * columns.size * rows.kernel * columns.kernel
            total += 2 * module.dim * (done - needed)
    return total


@pytest.mark.parametrize(
    ("build", "millions", "billions"),
    [(slide_nat_mini, 20.0, 2.76), (slide_nat_t, 27.9, 4.36), (slide_nat_s, 50.8, 7.87)],
)
def test_counts_are_those_of_the_docstring(
    build: Callable[[], SlideNat], millions: float, billions: float
) -> None:
    with torch.device("meta"):
        model = build()
    assert round(count_parameters(model) / 1e6, 1) == millions
    flops = count_flops(fused_skeleton(model), (FAMILY.input_spec(model.config),))
    assert round((flops - hidden_flops(model)) / 1e9, 2) == billions


@pytest.mark.parametrize(
    ("build", "billions"), [(slide_nat_mini, 2.7), (slide_nat_t, 4.3), (slide_nat_s, 7.8)]
)
def test_without_slide_attention_the_counts_are_nats_own(
    build: Callable[[], SlideNat], billions: float
) -> None:
    with torch.device("meta"):
        model = SlideNat(dataclasses.replace(build().config, slide_stages=0))
    flops = count_flops(model, (FAMILY.input_spec(model.config),))
    assert round((flops - hidden_flops(model)) / 1e9, 1) == billions


def test_names_are_those_of_the_public_implementation() -> None:
    names = set(tiny().state_dict())
    assert {
        "patch_embed.proj.0.weight",
        "patch_embed.proj.1.bias",
        "patch_embed.norm.weight",
        "levels.0.blocks.0.norm1.weight",
        "levels.0.blocks.0.attn.dep_conv1.weight",
        "levels.0.blocks.0.attn.relative_position_bias_table",
        "levels.1.blocks.1.mlp.fc2.bias",
        "levels.2.blocks.0.attn.rpb",
        "levels.2.blocks.0.attn.qkv.bias",
        "levels.3.blocks.0.attn.proj.weight",
        "levels.0.blocks.0.gamma1",
        "levels.3.blocks.0.gamma2",
        "levels.0.downsample.reduction.weight",
        "levels.2.downsample.norm.bias",
        "norm.weight",
        "head.bias",
    } <= names
    assert not any(
        "downsample.reduction.bias" in name or "levels.3.downsample" in name for name in names
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_classes": 0},
        {"layer_scale": False, "qkv_bias": False},
        {"slide_stages": 1, "kernel_size": 5, "neighborhood": 5, "in_channels": 1},
        {"slide_stages": 4, "neighborhood": 7},
        {"image_size": (7, 130)},
    ],
)
def test_a_bare_state_dict_tells_everything_but_the_size(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    model = tiny(**changes)
    path = saved(model, tmp_path)
    loaded = slide_deploy.load(path, image_size=model.config.image_size)
    assert loaded.family == "slide-nat"
    assert loaded.config == model.config
    x = image(model).double()
    with torch.no_grad():
        torch.testing.assert_close(loaded.module.double()(x), model.double()(x), rtol=0, atol=1e-12)
    with pytest.raises(AmbiguousModel, match="--image-size"):
        slide_deploy.load(path)


def test_a_config_in_the_file_tells_what_shapes_cannot(tmp_path: Path) -> None:
    model = tiny(qk_scale=0.2)
    loaded = slide_deploy.load(
        saved(model, tmp_path, config={"qk_scale": 0.2, "image_size": [36, 41]})
    )
    assert loaded.config == model.config
    assert loaded.notes == ()


def test_a_fused_file_loads_without_being_told_anything(tmp_path: Path) -> None:
    model = tiny()
    loaded = slide_deploy.load(saved(model, tmp_path), image_size=TINY.image_size)
    slide_deploy.fuse(loaded, tmp_path / "fused.safetensors")
    again = slide_deploy.load(tmp_path / "fused.safetensors")
    assert again.fused
    assert again.config == model.config


def test_incomplete_files_are_refused(tmp_path: Path) -> None:
    state = tiny().state_dict()
    partial = {key: value for key, value in state.items() if "levels.1.blocks.0" not in key}
    torch.save(partial, tmp_path / "partial.pth")
    with pytest.raises(ArchitectureError, match="numbered"):
        slide_deploy.load(tmp_path / "partial.pth", image_size=TINY.image_size)
    del state["patch_embed.proj.1.weight"]
    torch.save(state, tmp_path / "headless.pth")
    with pytest.raises(ArchitectureError, match=r"patch_embed\.proj\.1\.weight"):
        slide_deploy.load(tmp_path / "headless.pth", image_size=TINY.image_size)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"image_size": (0, 32)}, "0x32"),
        ({"heads": (1, 2, 3, 4)}, "3 heads"),
        ({"heads": (1, 2)}, "4 stages"),
        ({"neighborhood": 4}, "neighborhood 4"),
        ({"kernel_size": 2}, "kernel size 2"),
    ],
)
def test_sizes_that_cannot_be_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ArchitectureError, match=says):
        tiny(**changes)


def test_features_are_the_four_stages_maps() -> None:
    model = tiny()
    with torch.no_grad():
        features = model.forward_features(image(model))
        pooled = model.norm(features[-1].permute(0, 2, 3, 1)).mean(dim=(1, 2))
        assert torch.equal(model.head(pooled), model(image(model)))
    assert [tuple(map.shape) for map in features] == [
        (2, 8, 9, 11),
        (2, 16, 5, 6),
        (2, 32, 3, 3),
        (2, 64, 2, 2),
    ]


def test_no_tensor_has_a_rank_above_four() -> None:
    ranks = set()

    class Ranks(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                ranks.add(result.dim())
            return result

    model, x = fuse(tiny()), image(tiny())
    with torch.no_grad(), Ranks():
        model(x)
    assert max(ranks) == 4


def test_fused_and_captured_it_takes_any_batch() -> None:
    model = tiny()
    fused = fuse(model)
    batch = {0: torch.export.Dim("batch", min=1)}
    with torch.no_grad():
        program = torch.export.export(fused, (image(model),), dynamic_shapes=(batch,))
        x = image(model, 3)
        torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.slow  # the contract suite proves the family at usual sizes
def test_artifacts_agree_with_the_unfused_model(tmp_path: Path) -> None:
    # Stage 2 has a 9×5 map, cut into tiles; stage 4 a 3×2 map, smaller than the neighbourhood.
    model = tiny(slide_stages=1, image_size=(72, 40), depths=(1, 1, 1, 1))
    report = slide_deploy.export_and_verify(
        slide_deploy.load(saved(model, tmp_path), image_size=(72, 40)),
        ["onnx", "openvino", "torchscript", "coreml"],
        tmp_path / "out",
        slide_deploy.Options(dynamic=True),
        progress=lambda _: None,
    )
    assert [check.verdict for check in report.checks] == [slide_deploy.Verdict.PASS] * 4
