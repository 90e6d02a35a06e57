"""Loads the model that the options of a command name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from slide_deploy.cli.options import Weights, parse_size
from slide_deploy.cli.packaging import AS_IT_IS, Package
from slide_deploy.errors import UsageError

if TYPE_CHECKING:
    from slide_deploy.loading.loader import Model
    from slide_deploy.types import Loading

__all__ = ["load_model", "read_model"]


def load_model(
    path: Path | None,
    weights: Weights | None,
    image_size: str | None,
    features: bool = False,
    factory: str | None = None,
    inputs: list[str] | None = None,
    prefix: str | None = None,
    key: str | None = None,
    package: Package = AS_IT_IS,
) -> Model:
    """Load the model with the options of the command line; UsageError where none is named."""
    if path is None:
        raise UsageError("no model is given", "name a checkpoint: slide-deploy export … model.pth")
    if inputs and factory is None:
        raise UsageError(
            "--input needs a custom model", "add --model package.module:factory, or omit --input"
        )
    size = parse_size(image_size) if image_size is not None else None
    from slide_deploy import registry
    from slide_deploy.types import Loading
    from slide_deploy.utils.files import checkpoint_at

    checkpoint_at(path)
    registry.require("reading a model", ("torch",), "torch")
    from slide_deploy.loading.custom import parse_input

    specs = tuple(map(parse_input, inputs or ()))
    about = (weights and weights.value, size, features, prefix, key, factory or "", specs)
    return package.of(read_model(path, Loading(*about)))


def read_model(path: Path, loading: Loading) -> Model:
    """Read a model; that of a factory runs the user's code."""
    common = {
        "weights": loading.weights,
        "image_size": loading.image_size,
        "prefix": loading.prefix,
        "key": loading.key,
    }
    if loading.factory:
        from slide_deploy.loading.custom import load_foreign

        return load_foreign(path, loading.factory, loading.inputs, **common)  # type: ignore[arg-type]
    from slide_deploy.loading.loader import load

    return load(path, features=loading.features, **common)  # type: ignore[arg-type]
