"""Slide-PVTv2: counts, names, recognition, comparison with an independent implementation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

from slide_deploy.errors import AmbiguousModel, ArchitectureError
from slide_deploy.fusion.branches import fuse, fused_skeleton
from slide_deploy.loading.flops import count_flops
from slide_deploy.loading.inspection import count_parameters
from slide_deploy.loading.loader import load
from slide_deploy.models.slide_pvt_v2 import (
    FAMILY,
    SlidePvtV2,
    SlidePvtV2Config,
    slide_pvt_v2_b0,
    slide_pvt_v2_b1,
    slide_pvt_v2_b2,
    slide_pvt_v2_b3,
    slide_pvt_v2_b4,
    slide_pvt_v2_b5,
)

TINY = SlidePvtV2Config(
    image_size=(32, 32),
    embed_dims=(2, 4, 6, 8),
    depths=(1, 2, 1, 1),
    heads=(1, 2, 3, 4),
    mlp_ratios=(2.0, 2.0, 1.5, 1.0),
    sr_ratios=(1, 1, 2, 1),
    slide_stages=2,
    num_classes=3,
)


def images(count: int = 2, size: tuple[int, int] = (32, 32)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, *size, dtype=torch.float64, generator=generator)


@pytest.fixture
def tiny(drawn: Callable[[nn.Module], Any]) -> Callable[..., SlidePvtV2]:
    """tiny(**changes): a Slide-PVTv2 of a thousand weights, drawn at random, in float64."""
    return lambda **changes: drawn(SlidePvtV2(dataclasses.replace(TINY, **changes))).double()


@pytest.mark.parametrize(
    ("make", "parameters", "flops", "paper"),
    [
        (slide_pvt_v2_b0, 3_427_134, None, None),
        (slide_pvt_v2_b1, 13_005_406, 2_194_256_896, ("13.0", "2.2")),
        # the paper has 22.8 M here: see the module's docstring
        (slide_pvt_v2_b2, 23_606_475, 4_173_248_512, ("23.6", "4.2")),
        (slide_pvt_v2_b3, 43_482_315, None, None),
        (slide_pvt_v2_b4, 59_795_731, None, None),
        (slide_pvt_v2_b5, 79_697_647, None, None),
    ],
)
def test_published_sizes(
    make: Callable[[], SlidePvtV2],
    parameters: int,
    flops: int | None,
    paper: tuple[str, str] | None,
) -> None:
    with torch.device("meta"):
        model = make()
        fused = fused_skeleton(model)
    assert count_parameters(model) == parameters
    if flops is not None:
        found = count_flops(fused, (FAMILY.input_spec(model.config),))
        assert found == flops
        assert (f"{parameters / 1e6:.1f}", f"{found / 1e9:.1f}") == paper


def test_state_dict_has_the_public_names() -> None:
    with torch.device("meta"):
        shapes = {n: tuple(value.shape) for n, value in slide_pvt_v2_b1().state_dict().items()}
    outside = {name: shape for name, shape in shapes.items() if not name.startswith("block")}
    assert outside == {
        **{
            name: shape
            for stage, (before, dim, side) in enumerate(
                [(3, 64, 7), (64, 128, 3), (128, 320, 3), (320, 512, 3)], start=1
            )
            for name, shape in {
                f"patch_embed{stage}.proj.weight": (dim, before, side, side),
                f"patch_embed{stage}.proj.bias": (dim,),
                f"patch_embed{stage}.norm.weight": (dim,),
                f"patch_embed{stage}.norm.bias": (dim,),
                f"norm{stage}.weight": (dim,),
                f"norm{stage}.bias": (dim,),
            }.items()
        },
        "head.weight": (1000, 512),
        "head.bias": (1000,),
    }
    block = {
        name.removeprefix("block3.1."): shape
        for name, shape in shapes.items()
        if name.startswith("block3.1.") and name.endswith("weight")
    }
    assert block == {
        "norm1.weight": (320,),
        "attn.q.weight": (320, 320),
        "attn.kv.weight": (640, 320),
        "attn.proj.weight": (320, 320),
        "attn.sr.weight": (320, 320, 2, 2),
        "attn.norm.weight": (320,),
        "norm2.weight": (320,),
        "mlp.fc1.weight": (1280, 320),
        "mlp.dwconv.dwconv.weight": (1280, 1, 3, 3),
        "mlp.fc2.weight": (320, 1280),
    }
    assert shapes["block1.0.attn.relative_position_bias_table"] == (1, 1, 1, 9, 1, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"slide_stages": 0, "sr_ratios": (8, 4, 2, 1)},
        {"slide_stages": 4, "sr_ratios": (1, 1, 1, 1)},
        {"image_size": (37, 50), "kernel_size": 5, "qkv_bias": False},
    ],
    ids=["slide", "pvt", "all local", "odd sizes"],
)
def test_equals_a_naive_reading_of_the_publication(
    tiny: Callable[..., SlidePvtV2], naive_pyramid: Any, changes: dict[str, Any]
) -> None:
    model = tiny(**changes)
    x = images(1, model.config.image_size)
    maps, logits = naive_pyramid(model).pvt_v2(x[0].numpy())
    assert model(x)[0].numpy() == pytest.approx(logits, rel=1e-11, abs=1e-11)
    found = model.forward_features(x)
    assert [tuple(own.shape[2:]) for own in found] == [model.config.resolution(s) for s in range(4)]
    for own, expected in zip(found, maps, strict=True):
        assert own[0].numpy() == pytest.approx(expected, rel=1e-11, abs=1e-11)


def test_without_head_the_pooled_features_come_out(tiny: Callable[..., SlidePvtV2]) -> None:
    model, headless = tiny(), tiny(num_classes=0)
    headless.load_state_dict({k: v for k, v in model.state_dict().items() if "head" not in k})
    x = images()
    assert torch.equal(model.head(headless(x)), model(x))
    assert FAMILY.output_specs(headless.config)[0].shape == (1, 8)


def test_no_tensor_of_the_forward_pass_is_above_rank_4(
    tiny: Callable[..., SlidePvtV2], highest_rank: Any
) -> None:
    model = tiny()
    for form in (model, fuse(model)):
        assert highest_rank(form, images()) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_classes": 0},
        {"kernel_size": 5, "qkv_bias": False, "in_channels": 1},
        {"slide_stages": 4, "sr_ratios": (1, 1, 1, 1)},
        {"depths": (2, 1, 3, 2), "image_size": (40, 56)},
    ],
    ids=["tiny", "headless", "grey", "all local", "deep"],
)
def test_a_bare_state_dict_and_an_image_size_are_recognised(
    tmp_path: Path, tiny: Callable[..., SlidePvtV2], changes: dict[str, Any]
) -> None:
    model = tiny(**changes).float()
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    loaded = load(tmp_path / "bare.pth", image_size=model.config.image_size)
    x = torch.randn(2, model.config.in_channels, *model.config.image_size)
    assert (loaded.family, loaded.config) == ("slide-pvt-v2", model.config)
    assert torch.equal(loaded.module(x), model(x))


def test_the_image_size_is_asked_for_unless_the_training_config_has_it(
    tmp_path: Path, tiny: Callable[..., SlidePvtV2]
) -> None:
    state = tiny().float().state_dict()
    torch.save(state, tmp_path / "bare.pth")
    with pytest.raises(AmbiguousModel, match="--image-size"):
        load(tmp_path / "bare.pth")
    torch.save({"model": state, "config": {"DATA": {"IMG_SIZE": 32}}}, tmp_path / "full.pth")
    assert load(tmp_path / "full.pth").config == TINY


def test_the_linear_variant_is_refused_by_name(tiny: Callable[..., SlidePvtV2]) -> None:
    state = tiny().state_dict()
    state["block3.0.attn.sr.weight"] = torch.zeros(6, 6, 1, 1)
    with pytest.raises(ArchitectureError, match="linear variant"):
        FAMILY.recognise(state, None, (32, 32))


def test_a_map_that_reduction_leaves_nothing_of_is_refused() -> None:
    with pytest.raises(ArchitectureError, match="1x1 map, which is smaller than 2x2"):
        SlidePvtV2(dataclasses.replace(TINY, image_size=(16, 16)))


@pytest.mark.slow
def test_exported_it_takes_any_batch_height_and_width(tiny: Callable[..., SlidePvtV2]) -> None:
    """Its attention is local or reduces what it is given: no size is built in."""
    model = tiny()
    free = {
        0: Dim("batch", min=1),
        2: 32 * Dim("rows", min=2, max=16),
        3: 32 * Dim("columns", min=2, max=16),
    }
    example = images(2, (96, 160))
    program = torch.export.export(fuse(model), (example,), dynamic_shapes=(free,)).module()
    for count, size in ((1, (64, 96)), (3, (128, 64))):
        found = program(images(count, size))
        assert torch.allclose(found, model(images(count, size)), rtol=0, atol=1e-10)
