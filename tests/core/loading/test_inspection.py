"""The facts of `inspect`, compared with independent counts."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from slide_deploy import load
from slide_deploy.loading.flops import count_flops
from slide_deploy.loading.inspection import count_parameters, inspect
from slide_deploy.types import TensorSpec

DIGITS = Path(__file__).parents[3] / "examples" / "digits"


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
    assert found.config["depths"] == (1, 2)
    assert [shift.name for shift in found.shifts] == ["layers.0.blocks.0.attn"]


def test_multiply_adds_are_those_of_one_fused_image(
    tiny_file: Callable[..., Path], tmp_path: Path
) -> None:
    from slide_deploy import fuse

    model = load(tiny_file())
    fuse(model, tmp_path / "fused.safetensors")
    again = load(tmp_path / "fused.safetensors")
    assert inspect(model).flops == inspect(again).flops > 0


class Products(torch.nn.Module):
    """Every kind of convolution and matrix product that is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = torch.nn.MultiheadAttention(16, 2, batch_first=True)
        self.transposed = torch.nn.ConvTranspose1d(5, 6, 3, stride=2)
        self.grouped = torch.nn.Conv1d(5, 10, 3, groups=5, stride=2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        gram = torch.einsum("bij,bkj->bik", x, x)
        attended = torch.nn.functional.scaled_dot_product_attention(
            x[:, None], x[:, None], x[:, None]
        )
        moved = torch.baddbmm(gram, x, x.mT)
        whole, _ = self.attention(x, x, x, need_weights=False)
        return attended, whole, self.transposed(x), self.grouped(x), moved, x @ x[0].T


def reference_count(module: torch.nn.Module, *shape: int) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    shapes = copy.deepcopy(module).to("meta").requires_grad_(False)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shapes(torch.zeros(shape, device="meta"))
    return int(counter.get_total_flops()) // 2


def test_counts_are_those_of_torch() -> None:
    module = Products().eval()
    found = count_flops(module, (TensorSpec("x", (3, 5, 16)),))
    assert found == reference_count(module, 3, 5, 16) > 0


@pytest.mark.parametrize("family", ["swin", "pvt", "pvt_v2", "cswin", "nat"])
def test_counts_of_trained_models_are_those_of_torch(family: str) -> None:
    model = load(DIGITS / f"slide_{family}_digits.pth")
    image = tuple(map(int, model.inputs[0].shape))
    assert count_flops(model.merged, model.inputs) == reference_count(model.merged, *image) > 0


def test_inspecting_does_not_load_the_compiler() -> None:
    code = (
        "import sys; from pathlib import Path; from slide_deploy import load\n"
        "from slide_deploy.loading.inspection import inspect\n"
        f"inspect(load(Path({str(DIGITS / 'slide_swin_digits.pth')!r})))\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "False\n", done.stderr
