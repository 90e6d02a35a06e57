"""Artifacts that take a picture: the preprocessing is part of them."""

from __future__ import annotations

from dataclasses import replace

from slide_deploy.errors import UsageError
from slide_deploy.packaging.preprocessing import ColourOrder, InputKind, Layout, Preprocessing
from slide_deploy.types import Pixels, TensorSpec

__all__ = ["for_pictures", "picture_spec", "pixels_of"]


def for_pictures(preprocessing: Preprocessing, inputs: tuple[TensorSpec, ...]) -> Preprocessing:
    """The preprocessing as part of the artifacts of a model with these inputs.

    Resizing and cropping stay outside. Raises UsageError unless the model takes one image of three
    channels, of the size that the preprocessing gives.
    """
    spec = inputs[0]
    channels = -1 if preprocessing.layout is Layout.NHWC else 1
    if len(inputs) != 1 or len(spec.shape) != 4 or spec.dtype != "float32":
        raise UsageError("--preprocess needs a model with one image input", "omit --preprocess")
    if spec.shape[channels] != 3:
        raise UsageError(
            f"--preprocess needs an input of three channels in {preprocessing.layout}; "
            f"{spec.name} is {'x'.join(map(str, spec.shape))}",
            "correct the layout, or omit --preprocess",
        )
    size = _size(spec, preprocessing)
    exact = preprocessing.resize if isinstance(preprocessing.resize, tuple) else None
    given = preprocessing.crop or exact
    if given is not None and given != size:
        raise UsageError(
            f"the preprocessing gives pictures of {given[0]}x{given[1]} pixels, but the model "
            f"takes {size[0]}x{size[1]}",
            "correct its crop, or pass --image-size",
        )
    return replace(preprocessing, input=InputKind.IMAGE)


def picture_spec(spec: TensorSpec, preprocessing: Preprocessing) -> TensorSpec:
    """The picture that an artifact takes in place of the model's input `spec`: uint8
    (batch, height, width, 3) in RGB."""
    height, width = _size(spec, preprocessing)
    return TensorSpec(spec.name, (spec.shape[0], height, width, 3), "uint8", (0, 255))


def pixels_of(preprocessing: Preprocessing) -> Pixels:
    """(pixel × scale − mean) / std as (pixel − offset) × factor, in RGB."""
    own, reverses = preprocessing, preprocessing.colour_order is ColourOrder.BGR
    offset = tuple(mean / own.scale for mean in own.mean)
    factor = tuple(own.scale / std for std in own.std)
    return Pixels(
        offset=offset[::-1] if reverses else offset,
        factor=factor[::-1] if reverses else factor,
        reverses=reverses,
        channels_last=own.layout is Layout.NHWC,
    )


def _size(spec: TensorSpec, preprocessing: Preprocessing) -> tuple[int, int]:
    last = preprocessing.layout is Layout.NHWC
    height, width = spec.shape[1:3] if last else spec.shape[2:]
    return int(height), int(width)
