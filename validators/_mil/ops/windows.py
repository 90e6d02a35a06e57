"""The geometry of convolutions and poolings: kernel sizes, strides and padding."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import Any

import numpy as np

from slide_deploy.validators._mil.dtypes import Array
from slide_deploy.validators._mil.ops.registry import Ints
from slide_deploy.validators._mil.program import Unsupported

__all__ = ["Pads", "on_last", "pad_spatial", "resolve_pads", "spatial", "taps"]

# Before and after, for each spatial axis.
Pads = tuple[tuple[int, int], ...]


def spatial(values: Ints | None, rank: int, default: int, name: str) -> Ints:
    """One positive number per spatial axis."""
    if values is None:
        return (default,) * rank
    if len(values) != rank or min(values) < 1:
        raise ValueError(f"{name} {list(values)} for {rank} spatial axes")
    return values


def resolve_pads(
    pad_type: str, pad: Ints | None, sizes: Ints, windows: Ints, strides: Ints
) -> Pads:
    """The padding before and after each axis; `windows` are the dilated kernel sizes."""
    rank = len(sizes)
    if pad_type != "custom" and pad is not None and any(pad):
        raise Unsupported(f"pad {list(pad)} with pad_type {pad_type!r}")
    if pad_type == "valid":
        return ((0, 0),) * rank
    if pad_type == "custom":
        if pad is None or len(pad) != 2 * rank or min(pad) < 0:
            raise ValueError(f"pad {pad} for {rank} spatial axes")
        return tuple(zip(pad[::2], pad[1::2], strict=True))
    if pad_type not in ("same", "same_lower"):
        raise ValueError(f"unknown pad_type {pad_type!r}")
    pads = []
    for size, window, stride in zip(sizes, windows, strides, strict=True):
        total = max(0, (ceil(size / stride) - 1) * stride + window - size)
        less, more = total // 2, total - total // 2
        pads.append((less, more) if pad_type == "same" else (more, less))
    return tuple(pads)


def pad_spatial(x: Array, pads: Pads, value: float) -> Array:
    """x with its spatial axes (all but the first two) padded."""
    if not any(before or after for before, after in pads):
        return x
    sizes = (b + size + a for size, (b, a) in zip(x.shape[2:], pads, strict=True))
    padded = np.full((*x.shape[:2], *sizes), value, x.dtype)
    inside = (slice(b, b + size) for size, (b, _) in zip(x.shape[2:], pads, strict=True))
    padded[on_last(inside)] = x
    return padded


def on_last(slices: Iterable[slice]) -> tuple[Any, ...]:
    """An index with these slices on the last axes."""
    return (..., *slices)


def taps(
    kernel: Ints, outputs: Ints, strides: Ints, dilations: Ints
) -> list[tuple[Ints, tuple[Any, ...]]]:
    """Each kernel position, with its index into the padded inputs."""
    result = []
    for tap in np.ndindex(*kernel):
        slices = (
            slice(t * dilation, t * dilation + (count - 1) * stride + 1, stride)
            for t, count, stride, dilation in zip(tap, outputs, strides, dilations, strict=True)
        )
        result.append((tap, on_last(slices)))
    return result
