"""Slide-Swin's feature maps, compared with those of the public implementation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from slide_deploy.loading.loader import load
from slide_deploy.models.backbone import Stage

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.mark.parametrize("name", ["micro_official", "micro_k5_ape", "micro_shifted_bare"])
def test_stage_maps_are_those_before_the_downsampling(name: str) -> None:
    model = load(GOLDEN / f"{name}.pth").module
    recorded = np.load(GOLDEN / f"{name}.npz")
    maps = model.forward_features(torch.from_numpy(recorded["x"]))  # type: ignore[operator]
    assert len(maps) == len(model.layers)  # type: ignore[arg-type]
    for index, (stage, own) in enumerate(zip(model.layers, maps, strict=True)):  # type: ignore[arg-type]
        assert isinstance(stage, Stage)
        assert tuple(own.shape[1:]) == (stage.blocks[0].norm1.normalized_shape[0], *own.shape[2:])
        after = stage.downsample(own.permute(0, 2, 3, 1)).flatten(1, 2).numpy()
        assert np.abs(after - recorded[f"stage{index}"]).max() <= 1e-5
