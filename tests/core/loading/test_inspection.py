"""What `inspect` reports, counted a second way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from slide_deploy import load
from slide_deploy.loading.inspection import count_flops, count_parameters, inspect
from slide_deploy.types import TensorSpec


def test_multiply_adds_of_a_convolution_and_a_matrix_product() -> None:
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Flatten(), torch.nn.Linear(8 * 5 * 4, 7)
    )
    found = count_flops(module, (TensorSpec("x", (1, 3, 5, 4)),))
    assert found == 5 * 4 * 8 * 3 * 9 + 8 * 5 * 4 * 7


def test_parameters_count_frozen_ones_and_no_buffers() -> None:
    module = torch.nn.BatchNorm1d(3)
    module.weight.requires_grad_(False)
    assert count_parameters(module) == 6


def test_the_model_is_left_where_it_was(tiny_file: Callable[..., Path]) -> None:
    model = load(tiny_file())
    inspect(model)
    assert {value.device.type for value in model.module.state_dict().values()} == {"cpu"}


def test_facts_of_a_checkpoint(tiny_file: Callable[..., Path]) -> None:
    model = load(tiny_file())
    found = inspect(model)
    assert found.parameters == sum(p.numel() for p in model.module.parameters())
    assert found.config["depths"] == (2, 2)
    assert [shift.name for shift in found.shifts] == [
        "layers.0.blocks.0.attn",
        "layers.0.blocks.1.attn",
    ]


def test_multiply_adds_are_those_of_one_fused_image(
    tiny_file: Callable[..., Path], tmp_path: Path
) -> None:
    from slide_deploy import fuse

    model = load(tiny_file())
    fuse(model, tmp_path / "fused.safetensors")
    again = load(tmp_path / "fused.safetensors")
    assert inspect(model).flops == inspect(again).flops > 0
