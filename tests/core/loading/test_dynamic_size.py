"""Free sizes, and the names of free dimensions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slide_deploy.artifacts.prepare import preparer
from slide_deploy.errors import UsageError
from slide_deploy.loading.custom import wrap
from slide_deploy.loading.dynamic_size import dynamic_size_of, sized
from slide_deploy.types import Options, SizeSteps, TensorSpec


class Net(nn.Module):
    """A strided convolution, then whatever the case wants."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, 2, 1), head

    def forward(self, image: Tensor, *rest: Tensor) -> Any:
        return self.head(self.conv(image), *rest)


def image(height: int, width: int) -> TensorSpec:
    return TensorSpec("image", (1, 3, height, width))


@pytest.mark.parametrize(
    ("size", "step", "other"),
    [
        ((224, 224), 32, (192, 288)),
        ((64, 32), 16, (48, 64)),
        ((32, 32), 16, (48, 64)),
        ((24, 40), 8, (16, 56)),
        ((15, 9), 1, (14, 11)),
    ],
)
def test_sizes_are_multiples_of_what_divides_the_models_own(
    size: tuple[int, int], step: int, other: tuple[int, int]
) -> None:
    free = dynamic_size_of(wrap(Net(lambda x: x), [image(*size)]))
    assert {steps.step for steps in free.steps.values()} == {step}
    assert free.other == other
    height, width = size
    assert free.steps == {"height": SizeSteps(height, step), "width": SizeSteps(width + step, step)}
    assert min(height, width, *other) >= 2 * step
    assert all(n % step == 0 for n in (*size, *other))


class Patches(nn.Module):
    """Patches of 14, as many vision transformers cut them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 14, 14)

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[2] % 14 or image.shape[3] % 14:
            raise ValueError("not a multiple of 14")
        return self.conv(image)


@pytest.mark.parametrize(("size", "step"), [((56, 70), 14), ((224, 224), 14)])
def test_the_step_is_the_least_that_the_model_runs_with(size: tuple[int, int], step: int) -> None:
    free = dynamic_size_of(wrap(Patches(), [image(*size)]))
    assert {steps.step for steps in free.steps.values()} == {step}
    assert all(n % step == 0 for n in (*free.other, *free.smallest, *free.drawn(1)))


class OneHeight(Net):
    def forward(self, image: Tensor, *rest: Tensor) -> Any:
        return self.conv(image) * (2 if image.shape[2] == 48 else 1)


def test_one_size_that_is_treated_alone_is_refused_before_conversion() -> None:
    prepare = preparer(wrap(OneHeight(None), [image(48, 56)]), Options(dynamic_size=True))
    capture = prepare("onnx").capture
    with pytest.raises(UsageError, match=r"height cannot be dynamic: .* treats 48"):
        _ = capture.program


def test_sizes_are_drawn_between_the_smallest_and_the_largest() -> None:
    free = dynamic_size_of(wrap(Net(lambda x: x), [image(64, 96)]))
    assert free.smallest == (64, 64)
    drawn = {free.drawn(seed) for seed in range(20)}
    assert drawn <= {(h, w) for h in (64, 96) for w in (64, 96, 128, 160)}
    assert len(drawn) > 4


def test_dimensions_that_follow_the_image_have_names() -> None:
    net = Net(lambda x: {"map": x, "mean": x.mean((2, 3)), "row": x.mean(2)})
    free = dynamic_size_of(wrap(net, [image(16, 24)]))
    assert [spec.shape for spec in free.inputs] == [(1, 3, "height", "width")]
    assert [spec.shape for spec in free.outputs] == [
        (1, 4, "map_height", "map_width"),
        (1, 4),
        (1, 4, "row_2"),
    ]


class Fixed(nn.Module):
    fixes_size = "knows one map"

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("head", "inputs", "why"),
    [
        (Fixed(), [image(16, 16)], "head knows one map"),
        (lambda x: x + torch.zeros(8, 8), [image(16, 16)], "does not run on 24x32: RuntimeError"),
        (lambda x: x.reshape(1, 4, -1)[:, :, :9], [image(16, 16)], ""),
        (
            lambda x: x.reshape(1, 4, -1) if x.shape[2] == 8 else x,
            [image(16, 16)],
            "output output is [1, 4, 64] at one size and [1, 4, 12, 16] at another",
        ),
        (
            lambda x, y: x + y.mean(),
            [image(16, 16), TensorSpec("mask", (1, 1, 4, 4))],
            "of 2 images cannot be free",
        ),
    ],
)
def test_what_fixes_the_size_is_refused(head: Any, inputs: list[TensorSpec], why: str) -> None:
    model = wrap(Net(head), inputs)
    if not why:
        assert dynamic_size_of(model).outputs[0].shape == (1, 4, 9)
        return
    with pytest.raises(UsageError) as raised:
        dynamic_size_of(model)
    assert "cannot be free" in raised.value.message
    assert why in raised.value.message
    assert "--dynamic-size" in raised.value.hint


def test_only_images_are_sized() -> None:
    assert sized(image(4, 5), (6, 7)) == image(6, 7)
    ids = TensorSpec("ids", (1, 2, 3, 4), "int64")
    assert sized(ids, (6, 7)) == ids
