"""Slide-CSwin: published sizes, public names, stripes by definition, recognition, export."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import slide_deploy
from slide_deploy.errors import AmbiguousModel, ArchitectureError
from slide_deploy.fusion.branches import fuse, fused_skeleton
from slide_deploy.loading.flops import count_flops
from slide_deploy.loading.inspection import count_parameters
from slide_deploy.models.slide_cswin import (
    FAMILY,
    CrossShapedBlock,
    SlideCSwin,
    SlideCSwinConfig,
    slide_cswin_b,
    slide_cswin_s,
    slide_cswin_t,
)

# Stage 3 has a 7×14 map, so that its two kinds of stripes differ.
TINY = SlideCSwinConfig(
    image_size=(112, 224),
    embed_dim=4,
    depths=(1, 1, 2, 1),
    heads=(1, 2, 4, 8),
    num_classes=5,
    mlp_ratio=2.0,
)


def scrambled(module: Any) -> Any:
    """Every trainable weight drawn at random."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
                parameter.add_(float("norm" in name and "weight" in name))
    return module.eval()


def tiny(**changes: Any) -> SlideCSwin:
    model: SlideCSwin = scrambled(SlideCSwin(dataclasses.replace(TINY, **changes)))
    return model


def image(model: SlideCSwin, batch: int = 2) -> Tensor:
    size = (batch, model.config.in_channels, *model.config.image_size)
    return torch.randn(size, generator=torch.Generator().manual_seed(1))


def saved(model: nn.Module, folder: Path, **others: Any) -> Path:
    path = folder / "model.pth"
    torch.save({"model": model.state_dict(), **others} if others else model.state_dict(), path)
    return path


def naive(block: CrossShapedBlock, x: np.ndarray, branches: list[tuple[int, int]]) -> np.ndarray:
    """A CSWin block's attention pixel by pixel; `branches` are the stripes' rows and columns.

    Pixels of the padding that fills up the last stripes are keys and values of zero.
    """
    weights = {name: value.detach().double().numpy() for name, value in block.named_parameters()}
    batch, height, width, dim = x.shape
    qkv = x @ weights["qkv.weight"].T + weights["qkv.bias"]
    share, heads = dim // len(branches), block.attns[0].heads
    depth = share // heads
    out = np.zeros_like(x)
    for branch, (rows, columns) in enumerate(branches):
        top, left = (-height % rows) // 2, (-width % columns) // 2
        kernel = weights[f"attns.{branch}.get_v.weight"][:, 0]
        for b, row, column in np.ndindex(batch, height, width):
            first_row = (row + top) // rows * rows - top
            first_column = (column + left) // columns * columns - left

            def token(part: int, r: int, c: int, b: int = b, branch: int = branch) -> np.ndarray:
                if not (0 <= r < height and 0 <= c < width):
                    return np.zeros(share)
                start = part * dim + branch * share
                return qkv[b, r, c, start : start + share]

            mates = [(first_row + r, first_column + c) for r in range(rows) for c in range(columns)]
            pooled = np.zeros(share)
            for head in range(heads):
                own = slice(head * depth, (head + 1) * depth)
                q = token(0, row, column)[own] * depth**-0.5
                logits = np.array([q @ token(1, *mate)[own] for mate in mates])
                attention = np.exp(logits - logits.max())
                attention /= attention.sum()
                pooled[own] = sum(
                    a * token(2, *m)[own] for a, m in zip(attention, mates, strict=True)
                )
            position = weights[f"attns.{branch}.get_v.bias"].copy()
            for down in (-1, 0, 1):
                for right in (-1, 0, 1):
                    if (row + down, column + right) in mates:
                        near = token(2, row + down, column + right)
                        position += kernel[:, down + 1, right + 1] * near
            out[b, row, column, branch * share : (branch + 1) * share] = pooled + position
    return out @ weights["proj.weight"].T + weights["proj.bias"]


@pytest.mark.parametrize(
    ("resolution", "split", "stage", "branches"),
    [
        ((4, 6), 2, 0, [(4, 2), (2, 6)]),
        ((4, 4), 1, 0, [(4, 1), (1, 4)]),
        ((5, 7), 3, 0, [(5, 3), (3, 7)]),  # stripes that do not tile the map
        ((3, 3), 3, 0, [(3, 3)]),  # a stripe as wide as the map: one branch
        ((2, 4), 7, 1, [(2, 4)]),  # the last stage
    ],
)
def test_attention_equals_the_definition(
    resolution: tuple[int, int], split: int, stage: int, branches: list[tuple[int, int]]
) -> None:
    config = SlideCSwinConfig(
        image_size=(resolution[0] * 4 * 2**stage, resolution[1] * 4 * 2**stage),
        embed_dim=8 // 2**stage,
        depths=(1, 1),
        heads=(4, 4),
        slide_stages=0,
        split_sizes=(split, split),
    )
    assert config.resolution(stage) == resolution
    block = scrambled(CrossShapedBlock(config, stage)).double()
    x = np.random.default_rng(0).standard_normal((2, *resolution, 8))
    with torch.no_grad():
        ours = block.attend(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours, naive(block, x, branches), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("build", "millions", "billions"),
    [(slide_cswin_t, 22.3, 4.34), (slide_cswin_s, 34.7, 6.83), (slide_cswin_b, 77.4, 15.00)],
)
def test_counts_are_those_of_the_docstring(
    build: Callable[[], SlideCSwin], millions: float, billions: float
) -> None:
    with torch.device("meta"):
        model = build()
    assert round(count_parameters(model) / 1e6, 1) == millions
    flops = count_flops(fused_skeleton(model), (FAMILY.input_spec(model.config),))
    assert round(flops / 1e9, 2) == billions


def test_names_are_those_of_the_public_implementation() -> None:
    names = set(tiny().state_dict())
    assert {
        "stage1_conv_embed.0.weight",
        "stage1_conv_embed.2.bias",
        "stage1.0.norm1.weight",
        "stage1.0.attn.qkv.weight",
        "stage2.0.attn.dep_conv1.bias",
        "stage2.0.mlp.fc1.weight",
        "merge1.conv.weight",
        "merge3.norm.bias",
        "stage3.1.qkv.bias",
        "stage3.1.proj.weight",
        "stage3.1.attns.0.get_v.weight",
        "stage3.1.attns.1.get_v.bias",
        "stage3.1.norm2.bias",
        "stage4.0.attns.0.get_v.weight",
        "norm.weight",
        "head.bias",
    } <= names
    assert "stage4.0.attns.1.get_v.weight" not in names
    assert not any(name.startswith(("stage1.0.qkv", "stage1.0.attns")) for name in names)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_classes": 0, "in_channels": 1},
        {"qkv_bias": False, "kernel_size": 5},
        {"slide_stages": 1, "heads": (2, 4, 8, 16), "embed_dim": 8},
        {"slide_stages": 4},
        {"image_size": (384, 384), "split_sizes": (1, 2, 12, 12)},
        {"image_size": (112, 112)},  # stage 3 has a 7×7 map and one branch
        {"image_size": (30, 71)},  # every map is padded to stripes
    ],
)
def test_a_bare_state_dict_and_the_size_tell_a_published_layout(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    model = tiny(**changes)
    path = saved(model, tmp_path)
    loaded = slide_deploy.load(path, image_size=model.config.image_size)
    assert loaded.family == "slide-cswin"
    assert loaded.config == model.config
    assert any("split sizes of the published models" in note for note in loaded.notes)
    x = image(model, 1).double()
    with torch.no_grad():
        torch.testing.assert_close(loaded.module.double()(x), model.double()(x), rtol=0, atol=1e-12)
    with pytest.raises(AmbiguousModel, match="--image-size"):
        slide_deploy.load(path)


def test_a_config_in_the_file_tells_what_shapes_cannot(tmp_path: Path) -> None:
    given = {
        "qk_scale": 0.2,
        "image_size": 32,
        "heads": [1, 2, 2, 2],
        "split_sizes": [1, 1, 1, 1],
    }
    model = tiny(qk_scale=0.2, image_size=(32, 32), heads=(1, 2, 2, 2), split_sizes=(1, 1, 1, 1))
    loaded = slide_deploy.load(saved(model, tmp_path, config=given))
    assert loaded.config == model.config
    assert loaded.notes == ()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"image_size": (3, 32)}, "3x32"),
        ({"heads": (1, 2, 3, 8)}, "3 heads"),
        ({"heads": (1, 2, 1, 8)}, "1 heads of stage 2"),
        ({"heads": (1, 2)}, "4 stages"),
        ({"kernel_size": 2}, "kernel size 2"),
    ],
)
def test_sizes_that_cannot_be_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ArchitectureError, match=says):
        tiny(**changes)


def test_keys_that_are_missing_are_named(tmp_path: Path) -> None:
    state = tiny().state_dict()
    del state["stage1.0.mlp.fc1.weight"]
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(ArchitectureError, match=r"stage1\.0\.mlp\.fc1"):
        slide_deploy.load(tmp_path / "model.pth", image_size=TINY.image_size)


def test_features_are_the_four_stages_maps() -> None:
    model = tiny()
    with torch.no_grad():
        features = model.forward_features(image(model))
        pooled = model.norm(features[-1].permute(0, 2, 3, 1)).mean(dim=(1, 2))
        assert torch.equal(model.head(pooled), model(image(model)))
    assert [tuple(map.shape) for map in features] == [
        (2, 4, 28, 56),
        (2, 8, 14, 28),
        (2, 16, 7, 14),
        (2, 32, 4, 7),
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
    # Stage 3 has a 4×6 map in stripes of 4: one branch tiles it, the other is padded.
    model = tiny(image_size=(64, 96), depths=(1, 1, 1, 1), split_sizes=(1, 1, 4, 4))
    path = saved(model, tmp_path, config={"split_sizes": [1, 1, 4, 4]})
    report = slide_deploy.export_and_verify(
        slide_deploy.load(path, image_size=(64, 96)),
        ["onnx", "openvino", "torchscript", "coreml"],
        tmp_path / "out",
        slide_deploy.Options(dynamic=True),
        progress=lambda _: None,
    )
    assert [check.verdict for check in report.checks] == [slide_deploy.Verdict.PASS] * 4
