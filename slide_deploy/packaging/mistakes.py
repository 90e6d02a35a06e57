"""Mistakes in preprocessing that exporters and people make, to name one that an artifact shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from slide_deploy.packaging.preprocessing import Layout, Preprocessing, normalise

__all__ = ["mistakes"]

BLACK, PLAIN = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def mistakes(way: Preprocessing, pixels: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """What each mistake makes of uint8 (B, H, W, 3), as `normalise` does, with its name."""
    reversed_means = replace(way, mean=way.mean[::-1], std=way.std[::-1])
    batch, height, width, channels = pixels.shape
    planes = np.moveaxis(pixels.reshape(batch, channels, height, width), 1, -1)
    yield "the colour channels are swapped", normalise(way, pixels[..., ::-1])
    yield "mean and standard deviation are in BGR order", normalise(reversed_means, pixels)
    yield "pixels are not scaled", normalise(replace(way, scale=1.0), pixels)
    yield "pixels are scaled twice", normalise(replace(way, scale=way.scale**2), pixels)
    yield "the mean is not subtracted", normalise(replace(way, mean=BLACK), pixels)
    yield "nothing is divided by the standard deviation", normalise(replace(way, std=PLAIN), pixels)
    yield "rows of pixels are read as planes of colours", normalise(way, planes)
    yield "the standard deviation is applied along the width", _along_width(way, pixels)
    if height == width:
        yield "rows and columns are exchanged", normalise(way, pixels.swapaxes(1, 2))


def _along_width(way: Preprocessing, pixels: np.ndarray) -> np.ndarray:
    """Divided by the standard deviations in turn from column to column."""
    values = normalise(replace(way, std=PLAIN, layout=Layout.NHWC), pixels)
    values = values / np.resize(way.std, values.shape[-2])[:, None]
    return np.moveaxis(values, -1, -3) if way.layout is Layout.NCHW else values
