"""scikit-learn's handwritten digits as 32×32 images, with a fixed held-out split."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn import functional as F

__all__ = [
    "BACKGROUND",
    "HELD_OUT_FRACTION",
    "IMAGE_SIZE",
    "MEAN",
    "SPLIT_SEED",
    "STD",
    "Split",
    "held_out_split",
    "train_split",
]

# Independent of slide_deploy, so that it can be loaded by path without slide_deploy.

IMAGE_SIZE = 32
LARGEST = 16.0  # pixels are counts of 0 … 16 in cells of 4×4

# Of the original pixels, scaled to 0 … 1; equal for all three channels.
MEAN, STD = 0.305, 0.376
BACKGROUND = -MEAN / STD  # an empty pixel after normalisation

HELD_OUT_FRACTION = 0.25
SPLIT_SEED = 0

Split = tuple[NDArray[np.float32], NDArray[np.int64]]


def train_split() -> Split:
    """Images (1347, 3, 32, 32) and labels (1347,) to train on."""
    chosen, _ = _split_indices()
    return _prepared(chosen)


def held_out_split() -> Split:
    """Images (450, 3, 32, 32) and labels (450,) that are not used in training."""
    _, chosen = _split_indices()
    return _prepared(chosen)


def _split_indices() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    labels = load_digits().target
    train, held_out = train_test_split(
        np.arange(len(labels)),
        test_size=HELD_OUT_FRACTION,
        random_state=SPLIT_SEED,
        stratify=labels,
    )
    return train, held_out


def _prepared(chosen: NDArray[np.int64]) -> Split:
    digits = load_digits()
    pixels = torch.from_numpy(digits.images[chosen]).float()[:, None] / LARGEST
    size = (IMAGE_SIZE, IMAGE_SIZE)
    pixels = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
    images = ((pixels - MEAN) / STD).repeat(1, 3, 1, 1).numpy()
    return images, digits.target[chosen].astype(np.int64)
