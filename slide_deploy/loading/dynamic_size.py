"""Finds out whether the height and width of a model can be free, and which dimensions follow them.

Modules of this package that need a fixed size have `fixes_size`; a model of other modules is run
at several sizes. A free size is a multiple of the largest power of 2 up to 32 that divides the
model's own size, because of strides and patches, and at least two of these steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

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
    """Specs of one image with names as free dimensions, their possible values, and a size (height,
    width) other than the model's own for verification."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    steps: dict[str, SizeSteps]
    other: tuple[int, int]


def dynamic_size_of(model: Model) -> DynamicSize:
    """Raises UsageError, with the name of the part that fixes the size, if it cannot be free."""
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
    step = math.gcd(height, width, LARGEST_STEP)
    step = step // 2 if 1 < step == min(height, width) else step
    # The model's own size, one for tracing and one for verification: a dimension that is fixed to
    # one of them fails at the others.
    other = height - step if height >= 3 * step else height + step, width + 2 * step
    steps = {HEIGHT: SizeSteps(height, step), WIDTH: SizeSteps(width + step, step)}
    return DynamicSize(
        inputs=tuple(_freed(spec) if _is_image(spec) else spec for spec in model.inputs),
        outputs=_outputs(model, other),
        steps=steps,
        other=other,
    )


def sized(spec: TensorSpec, size: tuple[int, int]) -> TensorSpec:
    """The spec with this height and width, if it is an image."""
    return replace(spec, shape=(*spec.shape[:2], *size)) if _is_image(spec) else spec


def _is_image(spec: TensorSpec) -> bool:
    return len(spec.shape) == 4 and spec.dtype == "float32"


def _freed(spec: TensorSpec) -> TensorSpec:
    return replace(spec, shape=(*spec.shape[:2], HEIGHT, WIDTH))


def _outputs(model: Model, other: tuple[int, int]) -> tuple[TensorSpec, ...]:
    """The output specs, with a name for each dimension that depends on the size of the image."""
    inputs = [sized(spec, other) for spec in model.inputs]
    try:
        with torch.no_grad():
            made = model.module(*(zeros(spec) for spec in inputs))
    except Exception as error:  # a module of any kind
        raise UsageError(
            f"height and width cannot be free: {model.name} does not run on "
            f"{other[0]}x{other[1]}: {first_line(error)}",
            HINT,
        ) from error
    values = (made,) if isinstance(made, Tensor) else made
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
