"""Functions of several families that read and check sizes, and specify inputs and outputs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from slide_deploy.errors import AmbiguousModel, ArchitectureError
from slide_deploy.types import TensorSpec

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "block_counts",
    "check_heads",
    "check_kernel",
    "class_specs",
    "given_size",
    "head_classes",
    "image_sizes",
    "image_spec",
    "reading_keys",
    "training_size",
    "with_given",
]

Config = TypeVar("Config", bound="DataclassInstance")


def block_counts(state: Mapping[str, Tensor], pattern: str) -> tuple[int, ...]:
    """Blocks of each stage; the pattern's two groups are the numbers of the stage and the block.

    Raises ArchitectureError if no key matches, or a stage or block is missing.
    """
    found = (re.match(pattern, key) for key in state)
    blocks = sorted({(int(match[1]), int(match[2])) for match in found if match})
    stages = sorted({stage for stage, _ in blocks})
    counts = tuple(sum(1 for own, _ in blocks if own == stage) for stage in stages)
    expected = [
        (stage, block)
        for stage, count in zip(stages, counts, strict=True)
        for block in range(count)
    ]
    if not blocks or blocks != expected or stages != list(range(stages[0], stages[-1] + 1)):
        raise ArchitectureError(
            "the blocks in the state dict are not numbered consecutively",
            "check that the state dict is complete",
        )
    return counts


def head_classes(state: Mapping[str, Tensor]) -> int:
    """The number of classes of the classifier `head`, or 0 without one."""
    head = state.get("head.weight")
    return 0 if head is None else head.shape[0]


@contextmanager
def reading_keys(name: str) -> Iterator[None]:
    """Raise ArchitectureError if a key of the model `name` is missing or has a wrong shape."""
    try:
        yield
    except (KeyError, IndexError, ValueError) as error:
        raise ArchitectureError(
            f"keys of a {name} are missing or have a wrong shape: {error}",
            "check that the state dict is complete",
        ) from error


def check_heads(heads: Sequence[int], dims: Sequence[int], first: int = 0) -> None:
    """Raise ArchitectureError unless heads divide channels; `first` is the first stage's number."""
    for stage, (count, dim) in enumerate(zip(heads, dims, strict=True), start=first):
        if dim % count:
            raise ArchitectureError(
                f"{count} heads do not divide the {dim} channels of stage {stage}"
            )


def check_kernel(size: int, name: str = "kernel size") -> None:
    """Raise ArchitectureError unless the size is odd."""
    if size % 2 == 0:
        raise ArchitectureError(f"{name} {size} is not odd")


def image_spec(config: Any) -> TensorSpec:
    """The input of a model of images: `image`, (1, channels, height, width)."""
    return TensorSpec("image", (1, config.in_channels, *config.image_size))


def class_specs(config: Any) -> tuple[TensorSpec, ...]:
    """The output: `logits` of the classes, or pooled `features` without classes."""
    if config.num_classes:
        return (TensorSpec("logits", (1, config.num_classes)),)
    return (TensorSpec("features", (1, config.features)),)


def image_sizes(size: Any) -> tuple[int, int]:
    """(height, width) from one or two numbers."""
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def training_size(config: Mapping[str, Any] | None) -> tuple[int, int] | None:
    """(height, width) from the `DATA.IMG_SIZE` that Swin-like training scripts store."""
    size = ((config or {}).get("DATA") or {}).get("IMG_SIZE")
    return None if size is None else image_sizes(size)


def given_size(
    config: Mapping[str, Any] | None, image_size: tuple[int, int] | None, why: str
) -> tuple[int, int]:
    """The image size of the user or the file's config; AmbiguousModel if neither has one."""
    if image_size is not None:
        return image_size
    if config is not None and (size := config.get("image_size")) is not None:
        return image_sizes(size)
    raise AmbiguousModel(
        f"the checkpoint does not determine the image size: {why}",
        "pass --image-size, e.g. --image-size 224",
    )


def with_given(inferred: Config, config: Mapping[str, Any] | None) -> Config:
    """`inferred`, updated by the fields of the same names in the file's config.

    So a training script can store settings that shapes do not determine (`{"model": …, "config":
    {"heads": [...], "qk_scale": 0.2}}`). The image size is excluded; see `given_size`.
    """
    names = {field.name for field in dataclasses.fields(inferred)} - {"image_size"}
    given = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in (config or {}).items()
        if name in names
    }
    return dataclasses.replace(inferred, **given)
