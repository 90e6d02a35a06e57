"""Preprocessing as part of an artifact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slide_deploy.capture import Normalised
from slide_deploy.errors import UsageError
from slide_deploy.packaging.contents import labels_in, preprocessing_in
from slide_deploy.packaging.mistakes import mistakes
from slide_deploy.packaging.pictures import for_pictures, picture_spec, pixels_of
from slide_deploy.packaging.preprocessing import (
    ColourOrder,
    InputKind,
    Layout,
    Preprocessing,
    normalise,
    preset,
)
from slide_deploy.types import TensorSpec
from slide_deploy.utils.records import to_text

IMAGENET = preset("imagenet", (4, 6))
IMAGE = TensorSpec("image", (1, 3, 4, 6))
numbers = st.floats(0.01, 2)
triples = st.tuples(numbers, numbers, numbers)


@settings(max_examples=30, deadline=None)
@given(
    mean=triples,
    std=triples,
    scale=st.sampled_from([1.0, 1 / 255, 1 / 127.5]),
    order=st.sampled_from(list(ColourOrder)),
    layout=st.sampled_from(list(Layout)),
)
def test_the_module_computes_what_numpy_does(mean, std, scale, order, layout) -> None:
    changes = {"mean": mean, "std": std, "scale": scale, "colour_order": order, "layout": layout}
    way: Preprocessing = replace(IMAGENET, **changes)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), np.uint8)
    expected = normalise(way, pixels)
    module = Normalised(torch.nn.Identity(), pixels_of(way))
    made = module(torch.from_numpy(pixels)).numpy()
    limit = 1e-6 * (np.abs(expected).max() + max(m / s for m, s in zip(mean, std, strict=True)))
    np.testing.assert_allclose(made, expected, atol=limit, rtol=0)
    planes = Normalised(torch.nn.Identity(), pixels_of(way), takes_planes=True)
    of_planes = planes(torch.from_numpy(pixels).permute(0, 3, 1, 2).float()).numpy()
    np.testing.assert_array_equal(of_planes, made)


def test_an_artifact_takes_pixels_in_the_order_of_a_picture() -> None:
    spec = picture_spec(IMAGE, IMAGENET)
    assert spec == TensorSpec("image", (1, 4, 6, 3), "uint8", (0, 255))
    assert spec.is_picture
    assert for_pictures(IMAGENET, (IMAGE,)).input is InputKind.IMAGE


@pytest.mark.parametrize(
    ("inputs", "way", "message"),
    [
        ((IMAGE, IMAGE), IMAGENET, "one image input"),
        ((TensorSpec("ids", (1, 8), "int64"),), IMAGENET, "one image input"),
        ((TensorSpec("image", (1, 1, 4, 6)),), IMAGENET, "three channels"),
        ((IMAGE,), preset("imagenet", (8, 8)), "8x8 pixels, but the model takes 4x6"),
    ],
)
def test_a_model_that_takes_no_such_picture_is_refused(inputs, way, message) -> None:
    with pytest.raises(UsageError, match=message):
        for_pictures(way, inputs)


def test_metadata_tell_preprocessing_and_labels() -> None:
    metadata = {"preprocessing": to_text(IMAGENET), "labels": to_text(("cat", "Köter"))}
    assert preprocessing_in(metadata) == IMAGENET
    assert labels_in(metadata) == ("cat", "Köter")
    assert preprocessing_in({}) is labels_in({}) is None


def test_each_mistake_makes_another_image() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 6, 6, 3), np.uint8)
    way = replace(IMAGENET, crop=(6, 6))
    made = {"none": normalise(way, pixels), **dict(mistakes(way, pixels))}
    assert len(made) == 10
    shapes = {image.shape for image in made.values()}
    assert shapes == {(1, 3, 6, 6)}
    assert len({image.tobytes() for image in made.values()}) == 10
