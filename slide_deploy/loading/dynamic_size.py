"""Finds out whether the height and width of a model can be free, and which dimensions follow them.

What fixes a size says so itself (`fixes_size` of a module of this package); any other module is
run at other sizes. A size is a multiple of the largest power of 2 up to 32 that divides the
model's own, which is what strides and patches ask for, or of the least other number that divides it
(14, say) where the model does not run on those; and at least two of these steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from slide_deploy.capture import zeros
from slide_deploy.errors import UsageError
from slide_deploy.loading.loader import Model
from slide_deploy.types import HEIGHT, WIDTH, SizeSteps, TensorSpec
from slide_deploy.utils.text import first_line

__all__ = ["DynamicSize", "dynamic_size_of", "sized"]

LARGEST_STEP = 32
HINT = "omit --dynamic-size, and export once for each --image-size that you need"


@dataclass(frozen=True)
class DynamicSize:
    """Specs of one image with free dimensions as names, the values these take, and other sizes
    (height, width) than the model's own to ask an artifact for: always `other`, and one drawn
    between `smallest` and it."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    steps: dict[str, SizeSteps]
    other: tuple[int, int]
    smallest: tuple[int, int]

    def drawn(self, seed: int) -> tuple[int, int]:
        """A size that nobody can know in advance."""
        rng = np.random.default_rng(seed)
        step = self.steps[HEIGHT].step
        largest = max(self.steps[HEIGHT].example, self.other[0]), self.other[1]
        ends = zip(self.smallest, largest, strict=True)
        height, width = (step * int(rng.integers(a // step, b // step + 1)) for a, b in ends)
        return height, width


def dynamic_size_of(model: Model) -> DynamicSize:
    """Raises UsageError, with the name of the part that fixes the size, if it cannot be free."""
    if model.contained_preprocessing:
        raise UsageError(
            "height and width of pictures cannot be free: the preprocessing fixes their size",
            "omit one of --dynamic-size and --preprocess",
        )
    for name, module in model.module.named_modules():
        if why := getattr(module, "fixes_size", ""):
            raise UsageError(f"height and width cannot be free: {name or 'the model'} {why}", HINT)
    images = [spec for spec in model.inputs if _is_image(spec)]
    if len(images) != 1:
        raise UsageError(
            f"height and width of {len(images)} images cannot be free",
            "omit --dynamic-size, which is for models with one image input",
        )
    height, width = (int(size) for size in images[0].shape[2:])
    step, other, made = _first_step(model, height, width)
    steps = {HEIGHT: SizeSteps(height, step), WIDTH: SizeSteps(width + step, step)}
    return DynamicSize(
        inputs=tuple(_freed(spec) if _is_image(spec) else spec for spec in model.inputs),
        outputs=_outputs(model, made),
        steps=steps,
        other=other,
        smallest=_smallest(model, step, (min(height, other[0]), width)),
    )


def sized(spec: TensorSpec, size: tuple[int, int]) -> TensorSpec:
    """The spec with this height and width, if it is an image."""
    return replace(spec, shape=(*spec.shape[:2], *size)) if _is_image(spec) else spec


def _is_image(spec: TensorSpec) -> bool:
    return len(spec.shape) == 4 and spec.dtype == "float32"


def _freed(spec: TensorSpec) -> TensorSpec:
    return replace(spec, shape=(*spec.shape[:2], HEIGHT, WIDTH))


def _first_step(
    model: Model, height: int, width: int
) -> tuple[int, tuple[int, int], tuple[Tensor, ...]]:
    """The first step that the model runs with, another size of such steps, and what it makes of it;
    the UsageError of the first where there is none."""
    common = math.gcd(height, width)
    usual = math.gcd(common, LARGEST_STEP)
    steps = [usual, *(n for n in range(2, common + 1) if common % n == 0 and n != usual)]
    refusal: UsageError | None = None
    for step in steps:
        step = step // 2 if 1 < step == min(height, width) else step
        # Three sizes, the model's own, another to trace with and another to ask for: what is fixed
        # by one of them shows at the others.
        other = height - step if height >= 3 * step else height + step, width + 2 * step
        try:
            return step, other, _made(model, other)
        except UsageError as error:
            refusal = refusal or error
    assert refusal
    raise refusal


def _smallest(model: Model, step: int, safe: tuple[int, int]) -> tuple[int, int]:
    """Two steps, which is the least that artifacts take, where the model runs on so little."""
    try:
        _made(model, (2 * step, 2 * step))
    except UsageError:
        return safe
    return 2 * step, 2 * step


def _made(model: Model, size: tuple[int, int]) -> tuple[Tensor, ...]:
    """What the model makes of a blank image; UsageError where it does not run."""
    inputs = [sized(spec, size) for spec in model.inputs]
    try:
        with torch.no_grad():
            made = model.module(*(zeros(spec) for spec in inputs))
    except Exception as error:  # a module of any kind
        raise UsageError(
            f"height and width cannot be free: {model.name} does not run on "
            f"{size[0]}x{size[1]}: {first_line(error)}",
            HINT,
        ) from error
    return (made,) if isinstance(made, Tensor) else made


def _outputs(model: Model, values: tuple[Tensor, ...]) -> tuple[TensorSpec, ...]:
    """The outputs, with a name of its own for each dimension that follows the image's."""
    return tuple(
        replace(spec, shape=_compared(spec, tuple(value.shape)))
        for spec, value in zip(model.outputs, values, strict=True)
    )


def _compared(spec: TensorSpec, found: tuple[int, ...]) -> tuple[int | str, ...]:
    if len(found) != len(spec.shape) or found[0] != spec.shape[0]:
        raise UsageError(
            f"height and width cannot be free: output {spec.name} is {list(spec.shape)} at one "
            f"size and {list(found)} at another",
            HINT,
        )
    names = {2: HEIGHT, 3: WIDTH} if len(found) == 4 else {}
    return tuple(
        size if size == own else f"{spec.name}_{names.get(axis, axis)}"
        for axis, (size, own) in enumerate(zip(spec.shape, found, strict=True))
    )
