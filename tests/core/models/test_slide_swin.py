"""Slide-Swin: published sizes, ranks, layers, and recognition from bare weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from slide_deploy.errors import AmbiguousModel, ArchitectureError
from slide_deploy.fusion.branches import fused_skeleton
from slide_deploy.loading.flops import count_flops
from slide_deploy.loading.inspection import count_parameters
from slide_deploy.models.slide_swin import (
    FAMILY,
    PatchMerging,
    SlideSwin,
    SlideSwinConfig,
    slide_swin_b,
    slide_swin_s,
    slide_swin_t,
)
from slide_deploy.types import TensorSpec

MakeModel = Callable[..., SlideSwin]

PUBLISHED = [(slide_swin_t, 29, 4.6), (slide_swin_s, 51, 8.9), (slide_swin_b, 89, 15.5)]


@pytest.mark.parametrize(("build", "millions"), [row[:2] for row in PUBLISHED])
def test_parameters_are_those_of_the_paper(build: Callable[[], SlideSwin], millions: int) -> None:
    with torch.device("meta"):
        model = build()
    assert count_parameters(model) / 1e6 == pytest.approx(millions, rel=0.04)


@pytest.mark.parametrize(("build", "billions"), [row[::2] for row in PUBLISHED])
def test_multiply_adds_are_those_of_the_paper(
    build: Callable[[], SlideSwin], billions: float
) -> None:
    # The paper's figures fit 7×7 windows in the later stages; the published configurations
    # have 56, which attends globally there, with the same weights but for the bias tables.
    with torch.device("meta"):
        model = fused_skeleton(SlideSwin(dataclasses.replace(build().config, window_size=7)))
        found = count_flops(model, (TensorSpec("image", (1, 3, 224, 224)),))
    assert found / 1e9 == pytest.approx(billions, rel=0.04)


@pytest.mark.parametrize("window", [2, 4])
def test_no_tensor_of_the_forward_pass_is_above_rank_5(make_model: MakeModel, window: int) -> None:
    highest = 0

    class Ranks(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal highest
            result = func(*args, **(kwargs or {}))
            for value in result if isinstance(result, (tuple, list)) else (result,):
                highest = max(highest, getattr(value, "ndim", 0))
            return result

    model = make_model(window_size=window, ape=True)
    with torch.no_grad(), Ranks():
        model(torch.randn(2, 3, 16, 16))
    assert 0 < highest <= 5


def test_patch_merging_takes_neighbours_column_by_column() -> None:
    merging = PatchMerging(2)
    merging.norm = torch.nn.Identity()
    merging.reduction = torch.nn.Identity()
    x = torch.arange(2.0 * 4 * 6 * 2).reshape(2, 4, 6, 2)
    expected = torch.cat(
        [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], dim=-1
    )
    assert torch.equal(merging(x), expected)


def test_no_classes_gives_the_pooled_features(make_model: MakeModel) -> None:
    model = make_model(num_classes=0)
    image = torch.randn(2, 3, 16, 16)
    normed = []
    model.norm.register_forward_hook(lambda module, inputs, output: normed.append(output))
    found = model(image)
    assert torch.allclose(found, normed[0].mean(dim=(1, 2)))


def test_position_embedding_is_added_to_the_patches(make_model: MakeModel) -> None:
    model = make_model(ape=True)
    seen = []
    model.layers[0].blocks[0].register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0])
    )
    image = torch.randn(1, 3, 16, 16)
    model(image)
    tokens = model.patch_embed(image).flatten(1, 2)
    assert torch.allclose(seen[0].flatten(1, 2), tokens + model.absolute_pos_embed)


def test_the_position_scale_of_queries_reaches_every_attention(make_model: MakeModel) -> None:
    model = make_model(qk_scale=0.25)
    scales = {
        name: getattr(module, "scale", None) or module.config.scale
        for name, module in model.named_modules()
        if name.endswith("attn")
    }
    assert set(scales.values()) == {0.25}


def test_windows_shrink_to_the_map_and_then_do_not_shift(make_model: MakeModel) -> None:
    model = make_model(window_size=56)  # the window stage has a 4×4 map
    blocks = [model.layers[1].blocks[index] for index in range(2)]
    assert [(block.attn.window, block.attn.shift, block.attn_mask) for block in blocks] == [
        (4, 0, None),
        (4, 0, None),
    ]


def test_odd_blocks_shift_by_half_a_window(make_model: MakeModel) -> None:
    model = make_model()
    assert [block.attn.shift for block in model.layers[1].blocks] == [0, 1]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"image_size": (18, 16)}, "image size 18x16"),
        ({"image_size": (2, 2)}, "image size 2x2"),
        ({"image_size": (24, 20), "window_size": 4}, "window size 4"),
        ({"heads": (2, 3)}, "3 heads"),
        ({"kernel_size": 4}, "kernel size 4"),
    ],
    ids=["not-a-multiple", "too-small", "windows-do-not-tile", "heads", "even-kernel"],
)
def test_sizes_that_cannot_work_together_are_refused(
    tiny_config: SlideSwinConfig, changes: dict[str, Any], word: str
) -> None:
    with pytest.raises(ArchitectureError, match=word):
        SlideSwin(dataclasses.replace(tiny_config, **changes))


@st.composite
def architectures(draw: st.DrawFn) -> SlideSwinConfig:
    """Square Slide-Swins with at least one stage of each kind, as people train them."""
    stages = draw(st.integers(2, 3))
    slide_stages = draw(st.integers(1, stages - 1))
    return SlideSwinConfig(
        image_size=(draw(st.sampled_from([16, 32, 48])),) * 2,
        embed_dim=draw(st.sampled_from([4, 12])),
        depths=tuple(draw(st.lists(st.integers(1, 3), min_size=stages, max_size=stages))),
        heads=tuple(draw(st.lists(st.sampled_from([1, 2]), min_size=stages, max_size=stages))),
        slide_stages=slide_stages,
        window_size=draw(st.sampled_from([2, 4, 56])),
        num_classes=draw(st.sampled_from([0, 3])),
        kernel_size=draw(st.sampled_from([1, 3, 5])),
        patch_size=draw(st.sampled_from([1, 2])),
        in_channels=draw(st.sampled_from([1, 3])),
        mlp_ratio=draw(st.sampled_from([1.0, 2.5, 4.0])),
        qkv_bias=draw(st.booleans()),
        ape=draw(st.booleans()),
        patch_norm=draw(st.booleans()),
    )


@given(config=architectures())
def test_an_architecture_is_read_off_its_own_weights(config: SlideSwinConfig) -> None:
    try:
        config.check()
    except ArchitectureError:
        assume(False)
    state = SlideSwin(config).state_dict()

    try:
        found = FAMILY.recognise(state, None, None)
    except AmbiguousModel:
        return  # asking is always right; guessing is what must not happen

    if any("image size" in note for note in found.notes):
        return  # said to be assumed; `load` checks the assumption against every shape
    again = SlideSwin(found.config).state_dict()
    shapes = {name: value.shape for name, value in state.items()}
    assert {name: value.shape for name, value in again.items()} == shapes
    assert found.config.image_size == config.image_size


@given(config=architectures())
def test_the_image_size_given_is_taken(config: SlideSwinConfig) -> None:
    try:
        config.check()
    except ArchitectureError:
        assume(False)
    state = SlideSwin(config).state_dict()
    assert FAMILY.recognise(state, None, config.image_size).config.image_size == config.image_size


@pytest.mark.parametrize("ratio", [2.7, 1.9])
def test_any_mlp_ratio_is_read_off_its_own_weights(make_model: MakeModel, ratio: float) -> None:
    model = make_model(mlp_ratio=ratio, image_size=(16, 16))
    found = FAMILY.recognise(model.state_dict(), None, None).config
    again = SlideSwin(found)
    assert again.layers[1].blocks[0].mlp.fc1.weight.shape == (
        model.layers[1].blocks[0].mlp.fc1.weight.shape
    )


def evidence(state: dict[str, torch.Tensor]) -> tuple[tuple[int, int], tuple[str, ...]]:
    found = FAMILY.recognise(state, None, None)
    return found.config.image_size, tuple(note for note in found.notes if "image size" in note)


def test_image_size_comes_from_the_number_of_masked_windows(make_model: MakeModel) -> None:
    assert evidence(make_model(image_size=(32, 32)).state_dict()) == ((32, 32), ())


def test_image_size_comes_from_the_position_embedding(make_model: MakeModel) -> None:
    model = make_model(image_size=(32, 32), ape=True, depths=(1,), heads=(1,))
    size, (note,) = evidence(model.state_dict())
    assert size == (32, 32)
    assert "square" in note


def test_image_size_comes_from_a_window_smaller_than_the_others(make_model: MakeModel) -> None:
    model = make_model(depths=(1, 1, 1), heads=(1, 1, 1), window_size=4, patch_size=2)
    # stage 1 has a 4×4 map and windows of 4; stage 2 a 2×2 map, so its window is 2
    assert evidence(model.state_dict()) == ((16, 16), ())


def test_an_image_size_that_is_only_likely_is_said_to_be_assumed(make_model: MakeModel) -> None:
    size, notes = evidence(make_model(depths=(1, 1), window_size=4).state_dict())
    assert (size, len(notes)) == ((16, 16), 1)
    assert "--image-size" in notes[0]


def test_an_image_size_that_nothing_tells_is_asked_for(make_model: MakeModel) -> None:
    state = make_model(depths=(1, 1), slide_stages=2).state_dict()
    with pytest.raises(AmbiguousModel, match="--image-size"):
        FAMILY.recognise(state, None, None)


def test_masks_that_were_stripped_are_no_evidence(make_model: MakeModel) -> None:
    # Many tools save parameters only. A 16×16 map in 4×4 windows then looks like a 4×4 map.
    model = make_model(image_size=(64, 64), window_size=4)
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    try:
        size, notes = evidence(parameters)
    except AmbiguousModel:
        return
    assert size == (64, 64) or notes, f"silently taken as {size}"


def test_a_position_embedding_does_not_tell_that_the_image_is_square(
    make_model: MakeModel,
) -> None:
    # 4×16 tokens are as many as 8×8.
    model = make_model(image_size=(8, 32), ape=True, depths=(1, 1), slide_stages=2)
    try:
        size, notes = evidence(model.state_dict())
    except AmbiguousModel:
        return
    assert size == (8, 32) or notes, f"silently taken as {size}"


def test_the_forward_pass_takes_any_batch(make_model: MakeModel) -> None:
    model = make_model().double()
    images = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    together = model(images).detach().numpy()
    alone = torch.cat([model(image[None]) for image in images]).detach().numpy()
    assert np.allclose(together, alone, rtol=0, atol=1e-12)


def test_maps_need_not_be_square(make_model: MakeModel) -> None:
    model = make_model(image_size=(16, 32), num_classes=0).double()
    image = torch.randn(1, 3, 16, 32, dtype=torch.float64)
    flipped_model = make_model(image_size=(32, 16), num_classes=0).double()
    assert model(image).shape == flipped_model(image.transpose(2, 3)).shape == (1, 8)
