"""Differently seeded models, whose clean exports must pass."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from torch import nn

import slide_deploy
from benchmarks.mutation.bench import Bench
from slide_deploy.models.slide_swin import SlideSwin, SlideSwinConfig

__all__ = ["seeded_bench", "seeded_model"]


def seeded_bench(seed: int, folder: Path) -> Bench:
    """A small model with random sizes and weights, loaded from a checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / f"seed{seed}.pth"
    module = seeded_model(seed)
    torch.save(module.state_dict(), checkpoint)
    model = slide_deploy.load(checkpoint, image_size=module.config.image_size)
    return Bench(model.name, model, folder)


def seeded_model(seed: int) -> SlideSwin:
    """A model whose number of outputs varies, with weights as after training: non-zero biases and
    tables, and layers of different scale."""
    rng = random.Random(seed)
    side, kernel = rng.choice(((16, 3), (32, 3), (32, 5), (24, 3)))
    heads = rng.choice((1, 2, 4))
    config = SlideSwinConfig(
        image_size=(side, side),
        embed_dim=rng.choice((8, 16)),
        depths=rng.choice(((1, 1), (2, 1), (1, 2))),
        heads=(heads, 2 * heads),
        slide_stages=rng.choice((1, 1, 2)),
        window_size=rng.choice((2, side // 8)) if side != 24 else 3,
        num_classes=rng.choice((0, 2, 10, 100)),
        kernel_size=kernel,
    )
    torch.manual_seed(seed)
    module = SlideSwin(config)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layer.weight.mul_(rng.uniform(0.7, 2.5))
        for name, parameter in module.named_parameters():
            if "relative_position_bias_table" in name:
                parameter.normal_(std=0.5)
            elif "bias" in name or "norm" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()
