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
    image_size: cli.ImageSize = None,
) -> None:
    """Show the architecture, the cost and the learned shifts of a checkpoint."""
    loaded = load_model(model, weights, image_size, factory=factory, inputs=inputs)
    from slide_deploy.loading.inspection import inspect as look
    from slide_deploy.report.terminal import inspection_table, make_console

    make_console().print(inspection_table(look(loaded)))
