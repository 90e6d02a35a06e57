"""SmoothQuant changes no output, and evens out the channels of activations."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import slide_deploy
from slide_deploy.fusion.smoothing import norms_before_products, smoothed
from slide_deploy.models.families import simplified

DIGITS = sorted((Path(__file__).parents[3] / "examples" / "digits").glob("*.pth"))

EXAMPLE = [torch.ones(1, 3, 4)]


class Read(nn.Module):
    """A LayerNorm of 4 channels on tokens, and what reads it."""

    def __init__(self, *readers: nn.Module) -> None:
        super().__init__()
        self.norm, self.readers = nn.LayerNorm(4), nn.ModuleList(readers)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        normal = self.norm(x)
        return tuple(reader(normal) for reader in self.readers)


class Convolved(nn.Module):
    """A convolution of tokens as a map of 1 × 3 pixels."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.transpose(1, 2).reshape(-1, 4, 1, 3))


class Mixed(nn.Module):
    """A linear map that mixes tokens, not channels."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.transpose(1, 2))


@pytest.mark.parametrize("path", DIGITS, ids=lambda path: path.stem)
def test_no_output_of_a_family_changes(path: Path) -> None:
    model = slide_deploy.load(path)
    fused = simplified(model.merged)
    shape = (2, *model.inputs[0].shape[1:])
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    changed = smoothed(fused, [[x]], 0.5)
    with torch.no_grad():
        assert torch.equal(changed(x), fused(x))
    blocks = [name for name, own in fused.named_modules() if hasattr(own, "mlp")]
    found = norms_before_products(fused, [x])
    assert len(blocks) <= len(found) <= 3 * len(blocks)
    assert any(not torch.equal(*pair) for pair in _weights(changed, fused, found))


def _weights(one: nn.Module, other: nn.Module, names):
    return [tuple(m.get_parameter(f"{name}.weight") for m in (one, other)) for name in names]


@pytest.mark.parametrize(
    ("module", "found"),
    [
        (Read(nn.Linear(4, 2), nn.Linear(4, 3)), {"norm": ("readers.0", "readers.1")}),
        (Read(Convolved(1)), {"norm": ("readers.0.conv",)}),
        (Read(Convolved(2)), {}),
        (Read(Mixed()), {}),
        (Read(nn.Linear(4, 2), nn.GELU()), {}),
        (Read(nn.GELU()), {}),
    ],
    ids=["linear", "convolution", "groups", "other axis", "another reader", "no product"],
)
def test_only_norms_that_products_alone_read_are_smoothed(module: nn.Module, found) -> None:
    assert norms_before_products(module.eval(), EXAMPLE) == found


@given(
    channel=st.integers(0, 3),
    size=st.sampled_from([2.0**-20, 2.0**-8, 1.0, 300.0, 2.0**20]),
    alpha=st.floats(0.05, 0.95),
)
def test_activations_and_weights_share_the_range_of_a_channel(
    channel: int, size: float, alpha: float
) -> None:
    torch.manual_seed(0)
    module, x = Read(nn.Linear(4, 2)).eval(), torch.randn(1, 50, 4)
    with torch.no_grad():
        module.norm.weight[channel] *= size
        module.readers[0].weight[:, channel] /= size
    changed = smoothed(module, [[x]], alpha)
    with torch.no_grad():
        assert torch.equal(changed(x)[0], module(x)[0])
        ranges = [_ranges(own, x) for own in (module, changed)]
    (activations, weights), (smooth, _) = ranges
    # max|X_j| / s_j = (max|X_j| · max|W_j|)^(1−α), to the next power of two.
    wanted = (activations * weights) ** (1 - alpha)
    assert (smooth / wanted).log2().abs().max() <= 0.5 + 1e-5


def _ranges(module: Read, x: Tensor) -> tuple[Tensor, Tensor]:
    weights = module.readers[0].weight
    return module.norm(x).abs().flatten(0, 1).amax(0), weights.abs().amax(0)


@pytest.mark.parametrize("size", [2.0**-130, 2.0**100], ids=["tiny", "huge"])
def test_channels_at_the_ends_of_float32_keep_their_product(size: float) -> None:
    torch.manual_seed(0)
    module, x = Read(nn.Linear(4, 2)).eval(), torch.randn(1, 50, 4)
    with torch.no_grad():
        module.norm.weight[1] *= size
        module.norm.bias[1] = 0
        module.readers[0].weight[:, 1] = 2.0**120 / size if size > 1 else 2.0**20
    changed = smoothed(module, [[x]], 0.95)
    with torch.no_grad():
        assert torch.equal(changed(x)[0], module(x)[0])


def test_a_channel_of_zeros_stays() -> None:
    module = Read(nn.Linear(4, 2)).eval()
    with torch.no_grad():
        module.norm.weight[1] = module.norm.bias[1] = 0
        module.readers[0].weight[:, 2] = 0
    changed = smoothed(module, [EXAMPLE], 0.5)
    assert all(parameter.isfinite().all() for parameter in changed.parameters())
