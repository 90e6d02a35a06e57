"""Models rounded as honest runtimes may round them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slide_deploy import registry
from slide_deploy.artifacts.write import write_artifact
from slide_deploy.capture import Capture
from slide_deploy.reference.rounding import (
    APPROXIMATED_FUNCTIONS,
    OPERATOR_STEP,
    OperatorErrors,
    RandomRounding,
    with_rounded_weights,
)
from slide_deploy.types import TensorSpec


def _model(activation: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 64), activation or nn.GELU(), nn.Linear(64, 4)).eval()


def test_random_rounding_is_of_the_size_of_rounding_and_differs_between_seeds() -> None:
    model, x = _model(), torch.randn(8, 32)
    with torch.inference_mode():
        exact = copy.deepcopy(model).double()(x.double())
    made = []
    for seed in (0, 0, 1):
        with RandomRounding(seed), torch.inference_mode():
            made.append(model(x))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    assert 0 < float((made[0] - exact).abs().max()) < 1e-5


def test_sums_are_rounded_as_if_their_products_were_added_one_by_one() -> None:
    torch.manual_seed(0)
    left, right = torch.randn(64, 200), torch.randn(200, 64)
    in_a_row = torch.zeros(64, 64)
    for k in range(200):
        in_a_row += left[:, k, None] * right[None, k]
    exact = left.double() @ right.double()
    with RandomRounding(0):
        made = left @ right
    own, honest = ((value - exact).square().mean().sqrt() for value in (made, in_a_row))
    assert 0.5 < float(own / honest) < 2


@pytest.mark.parametrize(
    "product",
    [
        lambda x: F.linear(x, torch.ones(3, 40), torch.ones(3)),
        lambda x: F.conv2d(x.view(1, 10, 10, 4), torch.ones(2, 5, 3, 1), torch.ones(2), groups=2),
        lambda x: F.conv1d(x.view(1, 10, 40), torch.ones(5, 10, 3), bias=torch.ones(5), padding=1),
        lambda x: torch.matmul(x, x.t()),
        lambda x: torch.bmm(x[None], x.t()[None]),
    ],
)
def test_every_kind_of_product_is_rounded_around_its_result(
    product: Callable[[Tensor], Tensor],
) -> None:
    torch.manual_seed(0)
    x = torch.randn(10, 40)
    plain = product(x)
    with RandomRounding(0):
        made = product(x)
    off = (made - plain) / plain.abs().max()
    assert made.shape == plain.shape
    assert 1e-8 < float(off.abs().max()) < 1e-5
    assert abs(float(off.mean())) < float(off.abs().max()) / 2  # in both directions


def test_random_rounding_leaves_what_is_only_moved() -> None:
    x = torch.randn(3, 5)
    with RandomRounding(0):
        assert torch.equal(torch.cat([x.t(), x.t()]).relu(), torch.cat([x.t(), x.t()]).relu())
        assert torch.equal(x.reshape(-1), x.flatten())


def test_weights_are_off_by_one_rounding_at_most() -> None:
    model = _model()
    for weight, rounded in zip(
        model.parameters(), with_rounded_weights(model, 0).parameters(), strict=True
    ):
        off = ((rounded - weight.double()).abs() / weight.double().abs()).detach()
        assert 0 < float(off.max()) <= 2.0**-24


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        (nn.GELU(), "erf"),
        (nn.GELU("tanh"), "tanh"),
        (nn.SiLU(), "sigmoid"),
        (nn.Sigmoid(), "sigmoid"),
        (nn.Softplus(), "softplus"),
    ],
    ids=str,
)
def test_errors_are_made_in_the_functions_that_a_model_has(
    activation: nn.Module, function: str
) -> None:
    x = torch.linspace(-4, 4, 101)
    exact = activation(x)
    for asked in APPROXIMATED_FUNCTIONS:
        with OperatorErrors(asked) as errors, torch.inference_mode():
            off = float((activation(x) - exact).abs().max())
        assert errors.met is (asked == function)
        assert (off > OPERATOR_STEP / 2) is (asked == function)


FUNCTIONS = {
    "erf": torch.erf,
    "sigmoid": torch.sigmoid,
    "softplus": nn.functional.softplus,
    "tanh": torch.tanh,
}


class _Function(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return FUNCTIONS[self.name](x * self.weight)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_runtimes_functions_are_as_exact_as_it_declares(
    target: str, function: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Measured on the function alone, beyond two roundings of the result."""
    x = np.linspace(-20, 20, 40001, dtype=np.float32)[None]
    spec = TensorSpec("x", x.shape)
    capture = Capture(_Function(function).eval(), (spec,), (TensorSpec("y", x.shape),), {})
    folder, runtime = tmp_path_factory.mktemp(target), registry.runtime(target)
    written = write_artifact(target, function, capture, folder)
    made = runtime.open(folder / written.path).run({"x": x})["y"]
    wanted = FUNCTIONS[function](torch.from_numpy(x).double()).numpy()
    error = np.maximum(np.abs(made - wanted) - np.abs(wanted) * 2.0**-22, 0).max()
    assert error <= runtime.operator_errors.get(function, 1e-9)
