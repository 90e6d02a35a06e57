"""Slide-PVT: counts, names, recognition, comparison with an independent implementation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.nn import functional

from slide_deploy.errors import AmbiguousModel, ArchitectureError
from slide_deploy.fusion.branches import fuse, fused_skeleton
from slide_deploy.loading.flops import count_flops
from slide_deploy.loading.inspection import count_parameters
from slide_deploy.loading.loader import load, save_fused
from slide_deploy.models.slide_pvt import (
    FAMILY,
    SlidePvt,
    SlidePvtConfig,
    slide_pvt_l,
    slide_pvt_m,
    slide_pvt_s,
    slide_pvt_t,
)

TINY = SlidePvtConfig(
    image_size=(32, 32),
    position_size=(32, 32),
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
def tiny(drawn: Callable[[nn.Module], Any]) -> Callable[..., SlidePvt]:
    """tiny(**changes): a Slide-PVT of a thousand weights, drawn at random, in float64."""
    return lambda **changes: drawn(SlidePvt(dataclasses.replace(TINY, **changes))).double()


@pytest.mark.parametrize(
    ("make", "parameters", "flops", "paper"),
    [
        (slide_pvt_t, 12_225_694, 2_018_812_928, ("12.2", "2.0")),
        (slide_pvt_s, 22_729_483, 3_962_215_424, ("22.7", "4.0")),
        (slide_pvt_m, 42_451_723, None, None),
        (slide_pvt_l, 58_608_979, None, None),
    ],
)
def test_published_sizes(
    make: Callable[[], SlidePvt],
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
        shapes = {name: tuple(value.shape) for name, value in slide_pvt_t().state_dict().items()}
    outside = {name: shape for name, shape in shapes.items() if not name.startswith("block")}
    assert outside == {
        **{
            f"patch_embed{stage}.{name}": shape
            for stage, (before, dim, patch) in enumerate(
                [(3, 64, 4), (64, 128, 2), (128, 320, 2), (320, 512, 2)], start=1
            )
            for name, shape in {
                "proj.weight": (dim, before, patch, patch),
                "proj.bias": (dim,),
                "norm.weight": (dim,),
                "norm.bias": (dim,),
            }.items()
        },
        "pos_embed1": (1, 3136, 64),
        "pos_embed2": (1, 784, 128),
        "pos_embed3": (1, 196, 320),
        "pos_embed4": (1, 50, 512),
        "cls_token": (1, 1, 512),
        "norm.weight": (512,),
        "norm.bias": (512,),
        "head.weight": (1000, 512),
        "head.bias": (1000,),
    }
    attention = {
        name.removeprefix("block2.1.attn."): shape
        for name, shape in shapes.items()
        if name.startswith("block2.1.attn.")
    }
    assert attention == {
        "relative_position_bias_table": (1, 2, 1, 9, 1, 1),
        "qkv.weight": (384, 128),
        "qkv.bias": (384,),
        "proj.weight": (128, 128),
        "proj.bias": (128,),
        "dep_conv.weight": (576, 1, 3, 3),
        "dep_conv.bias": (576,),
        "dep_conv1.weight": (576, 1, 3, 3),
        "dep_conv1.bias": (576,),
    }
    block = {
        name.removeprefix("block3.0."): shape
        for name, shape in shapes.items()
        if name.startswith("block3.0.") and name.endswith("weight")
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
        "mlp.fc2.weight": (320, 1280),
    }


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"slide_stages": 0, "sr_ratios": (8, 4, 2, 1)},
        {"slide_stages": 1, "sr_ratios": (1, 3, 2, 1)},
        {"kernel_size": 5, "qkv_bias": False},
    ],
    ids=["slide", "pvt", "incomplete patches", "k5"],
)
def test_equals_a_naive_reading_of_the_publication(
    tiny: Callable[..., SlidePvt], naive_pyramid: Any, changes: dict[str, Any]
) -> None:
    model, x = tiny(**changes), images(1)
    _, logits = naive_pyramid(model).pvt(x[0].numpy(), class_token=True)
    found = model(x)[0].numpy()
    assert found == pytest.approx(logits, rel=1e-11, abs=1e-11)


def test_features_are_the_stage_maps_without_class_token(
    tiny: Callable[..., SlidePvt], naive_pyramid: Any
) -> None:
    model, x = tiny(), images(1)
    maps, _ = naive_pyramid(model).pvt(x[0].numpy(), class_token=False)
    found = model.forward_features(x)
    assert [tuple(own.shape) for own in found] == [
        (1, 2, 8, 8),
        (1, 4, 4, 4),
        (1, 6, 2, 2),
        (1, 8, 1, 1),
    ]
    for own, expected in zip(found, maps, strict=True):
        assert own[0].numpy() == pytest.approx(expected, rel=1e-11, abs=1e-11)


def test_without_head_the_class_token_comes_out(tiny: Callable[..., SlidePvt]) -> None:
    model, headless = tiny(), tiny(num_classes=0)
    headless.load_state_dict({k: v for k, v in model.state_dict().items() if "head" not in k})
    x = images()
    assert torch.equal(model.head(headless(x)), model(x))
    assert FAMILY.output_specs(headless.config)[0].shape == (1, 8)


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (37, 45)])
def test_position_embeddings_are_resized_bilinearly(
    tiny: Callable[..., SlidePvt], size: tuple[int, int]
) -> None:
    model = tiny(image_size=size)
    for stage in range(4):
        trained = model.get_parameter(f"pos_embed{stage + 1}")[:, 1 if stage == 3 else 0 :]
        side = 8 // 2**stage
        as_map = trained.reshape(1, side, side, -1).permute(0, 3, 1, 2)
        wanted = model.config.resolution(stage)
        expected = functional.interpolate(as_map, size=wanted, mode="bilinear")
        found = model.position(stage).permute(0, 3, 1, 2)
        assert torch.allclose(found, expected, rtol=0, atol=1e-6)
    assert model(images(2, size)).shape == (2, 3)


def test_no_tensor_of_the_forward_pass_is_above_rank_4(
    tiny: Callable[..., SlidePvt], highest_rank: Any
) -> None:
    model = tiny(image_size=(48, 64))
    for form in (model, fuse(model)):
        assert highest_rank(form, images(2, (48, 64))) == 4
        assert highest_rank(form.forward_features, images(2, (48, 64))) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_classes": 0},
        {"kernel_size": 5, "qkv_bias": False, "in_channels": 1},
        {"slide_stages": 3, "sr_ratios": (1, 1, 1, 1)},
        {"depths": (2, 1, 3, 2), "patch_size": 2},
    ],
    ids=["tiny", "headless", "grey", "three stages", "deep"],
)
def test_a_bare_state_dict_is_recognised(
    tmp_path: Path, tiny: Callable[..., SlidePvt], changes: dict[str, Any]
) -> None:
    model = tiny(**changes).float()
    if "patch_size" in changes:  # the square that the positions tell is another one then
        model = tiny(**changes, image_size=(16, 16), position_size=(16, 16)).float()
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    loaded = load(tmp_path / "bare.pth")
    size = model.config.image_size
    x = torch.randn(2, model.config.in_channels, *size)
    assert (loaded.family, loaded.config) == ("slide-pvt", model.config)
    assert torch.equal(loaded.module(x), model(x))
    assert loaded.notes == (
        "assumed: qk_scale d^-0.5, and heads of 2 channels in every stage",
        f"assumed: position embeddings of {size[0]}x{size[1]} images",
    )


def test_another_image_size_is_noted_and_travels_with_the_fused_file(
    tmp_path: Path, tiny: Callable[..., SlidePvt]
) -> None:
    torch.save(tiny().float().state_dict(), tmp_path / "bare.pth")
    loaded = load(tmp_path / "bare.pth", image_size=(48, 64))
    assert loaded.config == dataclasses.replace(TINY, image_size=(48, 64))
    assert loaded.notes[-1] == "assumed: position embeddings of 32x32 images, which are resized"
    save_fused(loaded, tmp_path / "fused.safetensors")
    again = load(tmp_path / "fused.safetensors")
    x = images(1, (48, 64)).float()
    assert again.config == loaded.config
    assert torch.allclose(again.module(x), loaded.module(x), rtol=0, atol=1e-5)


def test_positions_of_no_square_ask_for_the_image_size(
    tmp_path: Path, tiny: Callable[..., SlidePvt]
) -> None:
    wide = tiny(image_size=(32, 64), position_size=(32, 64)).float()
    torch.save(wide.state_dict(), tmp_path / "wide.pth")
    with pytest.raises(AmbiguousModel, match="--image-size"):
        load(tmp_path / "wide.pth")
    with pytest.raises(AmbiguousModel, match="--image-size"):
        load(tmp_path / "wide.pth", image_size=(64, 64))
    assert load(tmp_path / "wide.pth", image_size=(32, 64)).config == wide.config


def test_a_long_map_may_have_as_many_positions_as_a_square(
    tmp_path: Path, tiny: Callable[..., SlidePvt]
) -> None:
    long = tiny(image_size=(32, 128), position_size=(32, 128)).float()
    torch.save(long.state_dict(), tmp_path / "long.pth")
    assert load(tmp_path / "long.pth", image_size=(32, 128)).config == long.config
    loaded = load(tmp_path / "long.pth")
    assert loaded.config.image_size == (64, 64)
    assert loaded.notes[-1] == "assumed: position embeddings of 64x64 images"


@pytest.mark.parametrize("ratio", [2.7, 1 / 49, 1.0])
def test_any_mlp_width_is_read_off_its_own_weights(
    tmp_path: Path, tiny: Callable[..., SlidePvt], ratio: float
) -> None:
    model = tiny(embed_dims=(49, 98, 49, 98), heads=(7, 14, 7, 14), mlp_ratios=(ratio,) * 4)
    torch.save(model.float().state_dict(), tmp_path / "bare.pth")
    x = images().float()
    assert torch.equal(load(tmp_path / "bare.pth").module(x), model(x))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"slide_stages": 4, "sr_ratios": (1, 1, 1, 1)}, "class token"),
        ({"sr_ratios": (1, 1, 2, 2)}, "smaller than 2x2"),
        ({"image_size": (64, 64), "sr_ratios": (1, 1, 2, 2)}, "class token"),
        ({"image_size": (64, 16)}, "stage 3 a 4x1 map"),
        ({"image_size": (64, 24), "sr_ratios": (1, 1, 1, 1)}, "stage 4 a 2x0 map"),
        ({"position_size": (16, 16)}, "position embeddings"),
        ({"heads": (1, 2, 4, 4)}, "4 heads do not divide the 6 channels of stage 3"),
        ({"kernel_size": 4}, "not odd"),
    ],
)
def test_sizes_that_cannot_work_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ArchitectureError, match=words):
        SlidePvt(dataclasses.replace(TINY, **changes))


def test_weights_that_lack_keys_are_refused(tiny: Callable[..., SlidePvt]) -> None:
    state = tiny().state_dict()
    del state["block3.0.attn.proj.weight"]
    with pytest.raises(ArchitectureError, match=r"block3\.0\.attn\.proj\.weight"):
        FAMILY.recognise(state, None, None)


def test_a_detectors_backbone_has_all_that_the_stage_maps_need(
    tmp_path: Path, tiny: Callable[..., SlidePvt]
) -> None:
    model = tiny().float()
    unused = ("cls_token", "norm.", "head.")
    state = {k: v for k, v in model.state_dict().items() if not k.startswith(unused)}
    torch.save(state, tmp_path / "backbone.pth")
    loaded = load(tmp_path / "backbone.pth", features=True)
    x = images().float()
    for found, expected in zip(loaded.module(x), model.forward_features(x), strict=True):
        assert torch.equal(found, expected)
    with pytest.raises(ArchitectureError, match=r"lacks cls_token, norm\.weight, norm\.bias"):
        load(tmp_path / "backbone.pth")
    del state["block4.0.norm2.weight"]
    torch.save(state, tmp_path / "backbone.pth")
    with pytest.raises(ArchitectureError, match=r"lacks block4\.0\.norm2\.weight"):
        load(tmp_path / "backbone.pth", features=True)


def test_fused_and_exported_it_takes_any_batch(tiny: Callable[..., SlidePvt]) -> None:
    model = tiny()
    fused = fuse(model)
    batch = Dim("batch", min=1)
    program = torch.export.export(fused, (images(2),), dynamic_shapes=({0: batch},)).module()
    for count in (1, 3):
        found = program(images(count))
        assert torch.allclose(found, model(images(count)), rtol=0, atol=1e-10)
