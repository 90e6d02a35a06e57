"""Attentions whose parameters differ from their initial values."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from slide_deploy.fusion.branches import fuse_attention
from slide_deploy.lowering.catalog import lowerings
from slide_deploy.lowering.lowering import Lowering
from slide_deploy.models.slide_attention import (
    AttentionConfig,
    FusedSlideAttention,
    SlideAttention,
)

Pair = tuple[SlideAttention, FusedSlideAttention]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "lowering" in metafunc.fixturenames:
        metafunc.parametrize("lowering", lowerings(), ids=lambda lowering: lowering.name)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Tensors here are tiny: threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def attention() -> Callable[..., Pair]:
    """An unfused module with random weights, and the fused module."""

    def make(config: AttentionConfig, seed: int = 0, dtype: torch.dtype = torch.float64) -> Pair:
        generator = torch.Generator().manual_seed(seed)
        module = SlideAttention(config)
        with torch.no_grad():
            for parameter in module.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(parameter.detach() * 0 + 0.2 * noise)
            module.dep_conv.weight += SlideAttention(config).dep_conv.weight
        module = module.to(dtype).eval()
        return module, fuse_attention(module, "module")

    return make


@pytest.fixture(scope="session")
def tokens() -> Callable[..., Tensor]:
    """A random input of that shape."""

    def make(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)

    return make


@pytest.fixture(scope="session")
def error() -> Callable[[nn.Module, nn.Module, Tensor], float]:
    """Largest difference from the reference in float64, relative to its largest output."""

    def of(module: nn.Module, reference: nn.Module, x: Tensor) -> float:
        with torch.no_grad():
            expected = copy.deepcopy(reference).double()(x.double())
            got = module(x)
        assert got.shape == expected.shape == x.shape
        return float((got - expected).abs().max() / expected.abs().max())

    return of


@pytest.fixture(scope="session")
def built() -> Callable[[Lowering, FusedSlideAttention], nn.Module]:
    """A function that builds a lowering of a copy of a module."""
    return lambda lowering, fused: lowering.build(copy.deepcopy(fused)).eval()
