"""A Slide-Swin of a few hundred weights: a slide stage, then 2×2 windows that shift."""

from __future__ import annotations

from slide_deploy.models.slide_swin import SlideSwinConfig

__all__ = ["TINY"]

TINY = SlideSwinConfig(
    image_size=(16, 16),
    embed_dim=4,
    depths=(1, 2),
    heads=(2, 2),
    slide_stages=1,
    window_size=2,
    num_classes=3,
    patch_size=2,
)
