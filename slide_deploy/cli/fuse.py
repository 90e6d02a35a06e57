"""slide-deploy fuse."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slide_deploy.cli import options as cli
from slide_deploy.cli.model import load_model
from slide_deploy.errors import UsageError
from slide_deploy.utils.text import one_line

__all__ = ["fuse"]


def fuse(
    model: cli.ModelFile,
    output: Annotated[
        Path, cli.output_option("--output", "-o", help="A .safetensors file to write.")
    ],
    weights: cli.WeightsOption = None,
    prefix: cli.Prefix = None,
    key: cli.Key = None,
    image_size: cli.ImageSize = None,
) -> None:
    """Fuse the shift convolutions and write the weights to a file that every command accepts."""
    if output.suffix != ".safetensors":
        raise UsageError(f"{output} does not end in .safetensors", "add that suffix to --output")
    loaded = load_model(model, weights, image_size, prefix=prefix, key=key)
    from slide_deploy.fusion.branches import shift_reports
    from slide_deploy.loading.loader import save_fused
    from slide_deploy.report.text import size_text

    save_fused(loaded, output)
    count = len(shift_reports(loaded.module))
    modules = "module" if count == 1 else "modules"
    typer.echo(
        f"fused {count} Slide Attention {modules} into {one_line(str(output))} "
        f"({size_text(output.stat().st_size)}), each equal to its training form within 1e-12"
    )
