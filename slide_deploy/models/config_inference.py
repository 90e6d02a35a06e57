"""What families share in reading an architecture off a bare state dict."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from slide_deploy.errors import AmbiguousModel, ArchitectureError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["block_counts", "given_size", "head_classes", "with_given"]

Config = TypeVar("Config", bound="DataclassInstance")


def block_counts(state: Mapping[str, Tensor], pattern: str) -> tuple[int, ...]:
    """Blocks of each stage; the pattern's two groups are the stage's and the block's number.

    Raises ArchitectureError where no key matches or a stage or block is missing.
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
            "the blocks in the state dict are not numbered one after another",
            "is it the whole model's state dict?",
        )
    return counts


def head_classes(state: Mapping[str, Tensor]) -> int:
    """Classes of the classifier `head`, 0 where there is none."""
    head = state.get("head.weight")
    return 0 if head is None else head.shape[0]


def given_size(
    config: Mapping[str, Any] | None, image_size: tuple[int, int] | None, why: str
) -> tuple[int, int]:
    """The image size that the user or the file's config gives; AmbiguousModel if neither does."""
    if image_size is not None:
        return image_size
    if config is not None and (size := config.get("image_size")) is not None:
        height, width = (size, size) if isinstance(size, int) else size
        return int(height), int(width)
    raise AmbiguousModel(
        f"the checkpoint does not tell the image size: {why}",
        "pass --image-size, e.g. --image-size 224",
    )


def with_given(recognised: Config, config: Mapping[str, Any] | None) -> Config:
    """`recognised` with what the file's config says by the fields' own names.

    This is how a training script states what no shape tells (`{"model": …, "config": {"heads":
    [...], "qk_scale": 0.2}}`). The image size is not taken from here: `given_size` decides it.
    """
    names = {field.name for field in dataclasses.fields(recognised)} - {"image_size"}
    given = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in (config or {}).items()
        if name in names
    }
    return dataclasses.replace(recognised, **given)
