"""The reference of an artifact that contains preprocessing."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import nn

from slide_deploy.packaging.preprocessing import InputKind, normalise, prepare, preset
from slide_deploy.parity.probes import Probe
from slide_deploy.reference.expectations import expectations
from slide_deploy.types import TensorSpec


def test_baked_in_preprocessing_is_part_of_the_float64_reference() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(72, 4)).eval()
    baked = replace(preset("imagenet", (8, 8)), input=InputKind.IMAGE)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), np.uint8)
    [found] = expectations(
        model,
        (TensorSpec("y", (1, 4)),),
        (Probe("picture", "", {"image": pixels}),),
        prepare=partial(prepare, baked),
    )
    assert found.inputs["image"] is pixels
    with torch.inference_mode():
        exact = copy.deepcopy(model).double()(torch.from_numpy(normalise(baked, pixels)))
    assert np.array_equal(found.references["y"], exact.numpy())
    assert 0 < found.noise["y"].floor < 1e-5
