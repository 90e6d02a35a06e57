"""Loads the model that the options of a command name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from slide_deploy.cli.options import Weights, parse_size
from slide_deploy.cli.packaging import AS_IT_IS, Package
from slide_deploy.errors import UsageError

if TYPE_CHECKING:
    from slide_deploy.loading.loader import Model

__all__ = ["load_model"]


def load_model(
    path: Path,
    weights: Weights | None,
    image_size: str | None,
    features: bool = False,
    factory: str | None = None,
    inputs: list[str] | None = None,
    prefix: str | None = None,
    key: str | None = None,
    package: Package = AS_IT_IS,
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
        model = load_foreign(
            path, factory, specs, weights=weights, image_size=size, prefix=prefix, key=key
        )
    else:
        from slide_deploy.loading.loader import load

        model = load(
            path, weights=weights, image_size=size, features=features, prefix=prefix, key=key
        )
    return package.of(model)
