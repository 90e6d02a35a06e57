"""A model that overflows in float16: what keeps it finite is found by trying."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import slide_deploy
from slide_deploy.models.slide_swin import SlideSwin
from slide_deploy.reference.overflow import blocks_in_float32, finite_lowerings
from tests.tiny import TINY

INPUTS = {"x": np.ones((1, 4), np.float32)}


class Scaled(nn.Module):
    """Multiplies by a large number, then by another."""

    def __init__(self, first: float, second: float) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.tensor([first, second]))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factors[0] * self.factors[0] * self.factors[1]


def model(*factors: tuple[float, float]) -> nn.Sequential:
    return nn.Sequential(*(Scaled(first, second) for first, second in factors))


NAMES = ["0", "1", "2"]
INNER, OUTER, FINE = (1e3, 1e-4), (1e3, 1.0), (1.0, 0.5)


@pytest.mark.parametrize(
    ("factors", "kept"),
    [
        ((FINE, FINE, FINE), ()),
        ((FINE, INNER, FINE), ("1",)),
        ((INNER, FINE, (1e2, 1e-4)), ("0", "2")),
        ((FINE, OUTER, FINE), ()),  # what leaves the block is too large
        ((INNER, OUTER, FINE), ()),
    ],
)
def test_blocks_that_overflow_within_are_found(factors: Any, kept: tuple[str, ...]) -> None:
    built = model(*factors)
    before = {name: value.clone() for name, value in built.state_dict().items()}
    assert blocks_in_float32(built, NAMES, INPUTS, "float16") == kept
    assert all(value.equal(before[name]) for name, value in built.state_dict().items())
    assert blocks_in_float32(built, NAMES, INPUTS, "float32") == ()


@pytest.fixture(scope="module")
def overflowing(
    tmp_path_factory: pytest.TempPathFactory, make_model: Any, training_config: Any
) -> slide_deploy.Model:
    """The first MLP has hidden values that float16 cannot hold."""
    module: SlideSwin = make_model()
    mlp = module.get_submodule("layers.0.blocks.0.mlp")
    with torch.no_grad():
        mlp.get_parameter("fc1.weight").mul_(1e6)
        mlp.get_parameter("fc2.weight").mul_(1e-6)
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pth"
    torch.save({"model": module.state_dict(), "config": training_config(TINY)}, path)
    return slide_deploy.load(path)


def test_the_lowerings_that_are_finite_are_found(overflowing: slide_deploy.Model) -> None:
    (spec,) = overflowing.inputs
    shape = tuple(int(size) for size in spec.shape)
    inputs = {spec.name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    fused = overflowing.merged
    assert finite_lowerings(fused, overflowing.inputs, inputs, "float16") == ()
    assert "depthwise" in finite_lowerings(fused, overflowing.inputs, inputs, "float32")


@pytest.mark.slow
def test_the_report_tells_the_block_and_what_avoids_it(
    overflowing: slide_deploy.Model, tmp_path: Path
) -> None:
    options = slide_deploy.Options(precision="float16")
    report = slide_deploy.export_and_verify(overflowing, "torchscript", tmp_path, options)
    assert any(
        problem.endswith(
            "layers.0.blocks.0.mlp is the first block; it is finite with layers.0.blocks.0.mlp in "
            "float32"
        )
        for problem in report.checks[0].problems
    ), [p[-400:] for p in report.checks[0].problems]
