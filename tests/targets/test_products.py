"""The products of a float artifact are named with their block and kind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from slide_deploy import registry, write_artifact
from slide_deploy.capture import Capture
from slide_deploy.types import ProductKind, TensorSpec

TARGETS = [t for t in registry.target_names() if registry.exporter(t).products is not None]


class Mixed(nn.Module):
    """One product of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3)
        self.shift = nn.Conv2d(32, 32, 3, groups=32)
        self.head = nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.head(self.shift(self.stem(x)).flatten(2).transpose(1, 2))
        return tokens @ tokens.transpose(1, 2)


@pytest.mark.parametrize("target", TARGETS)
def test_each_product_has_its_module_and_kind(target: str, tmp_path: Path) -> None:
    module = Mixed().eval().requires_grad_(False)
    specs = (TensorSpec("x", (1, 3, 8, 8)),), (TensorSpec("y", (1, 16, 16)),)
    record = write_artifact(target, "mixed", Capture(module, *specs, {}), tmp_path)
    products = registry.exporter(target).products
    assert products is not None
    found = {product.kind: product.path for product in products(tmp_path / record.path).values()}
    assert set(found) == set(ProductKind)
    assert found[ProductKind.CONVOLUTION].startswith("stem")
    assert found[ProductKind.GROUPED].startswith("shift")
    assert found[ProductKind.LINEAR].startswith("head")
