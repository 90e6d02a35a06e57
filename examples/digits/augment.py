"""Small random rotations, scalings and shifts of a batch of images."""

from __future__ import annotations

import math

import torch
from data import BACKGROUND
from torch import Tensor
from torch.nn import functional as F

__all__ = ["augment"]

MAX_ROTATION = math.radians(10)
MAX_SCALING = 0.1
MAX_SHIFT = 0.2  # in half image sides: one tenth of the side, under one original pixel


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image (B, C, H, W) by its own affine map; the new border is background."""
    symmetric = torch.rand(4, len(images), generator=generator) * 2 - 1
    angle, scale = symmetric[0] * MAX_ROTATION, 1 + symmetric[1] * MAX_SCALING
    right, down = symmetric[2] * MAX_SHIFT, symmetric[3] * MAX_SHIFT
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    rows = torch.stack((cosine, -sine, right, sine, cosine, down), dim=1)
    grid = F.affine_grid(rows.reshape(-1, 2, 3), list(images.shape), align_corners=False)
    # grid_sample pads with zeros, so let zero mean background while it runs.
    return F.grid_sample(images - BACKGROUND, grid, align_corners=False) + BACKGROUND
