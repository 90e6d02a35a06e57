"""Loads the model and the images that the options of a command name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from slide_deploy.cli.options import Weights, parse_size
from slide_deploy.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from slide_deploy.loading.loader import Model

__all__ = ["load_images", "load_model"]


def load_model(
    path: Path,
    weights: Weights | None,
    image_size: str | None,
    features: bool = False,
    factory: str | None = None,
    inputs: list[str] | None = None,
    prefix: str | None = None,
    key: str | None = None,
) -> Model:
    """Load the model with the options of the command line."""
    if inputs and factory is None:
        raise UsageError(
            "--input needs a custom model", "add --model package.module:factory, or omit --input"
        )
    size = parse_size(image_size) if image_size is not None else None
    from slide_deploy import registry
    from slide_deploy.utils.files import checkpoint_at

    checkpoint_at(path)
    registry.require("reading a model", ("torch",), "torch")
    if factory is not None:
        from slide_deploy.loading.custom import load_foreign, parse_input

        specs = tuple(map(parse_input, inputs or ()))
        return load_foreign(
            path, factory, specs, weights=weights, image_size=size, prefix=prefix, key=key
        )
    from slide_deploy.loading.loader import load

    return load(path, weights=weights, image_size=size, features=features, prefix=prefix, key=key)


def load_images(folder: Path | None, model: Model) -> tuple[np.ndarray, ...]:
    """Read the images of --images, each (C, H, W); UsageError if the model takes no image."""
    if folder is None:
        return ()
    from slide_deploy.packaging.images import read_images

    first, *others = model.artifact_inputs
    if others or len(first.shape) != 4 or not (first.dtype == "float32" or first.is_picture):
        raise UsageError("--images needs a model with one image input", "omit --images")
    return read_images(folder, first, model.preprocessing)
