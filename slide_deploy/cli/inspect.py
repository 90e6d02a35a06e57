"""slide-deploy inspect."""

from __future__ import annotations

from slide_deploy.cli import options as cli
from slide_deploy.cli.model import load_model

__all__ = ["inspect"]


def inspect(
    model: cli.ModelFile,
    factory: cli.Factory = None,
    inputs: cli.Inputs = None,
    weights: cli.WeightsOption = None,
    prefix: cli.Prefix = None,
    key: cli.Key = None,
    image_size: cli.ImageSize = None,
) -> None:
    """Show a checkpoint's architecture, FLOPs, and how much of each shift is learned."""
    loaded = load_model(
        model, weights, image_size, factory=factory, inputs=inputs, prefix=prefix, key=key
    )
    from slide_deploy.loading.inspection import inspect as look
    from slide_deploy.report.terminal import inspection_table, make_console

    make_console().print(inspection_table(look(loaded)))
