"""Writes torch.export archives (.pt2)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from slide_deploy.protocols import Exporter
from slide_deploy.types import Options, Precision

if TYPE_CHECKING:
    from slide_deploy.capture import Capture

__all__ = ["EXPORTER"]


def write(capture: Capture, path: Path, options: Options) -> None:
    """The captured graph as it is; names of inputs and outputs go along as an extra file."""
    import torch  # inside: `slide-deploy targets` imports this file where torch may be missing

    if options.precision == Precision.FLOAT16:
        capture = capture.in_half()
    about = {
        "inputs": [dataclasses.asdict(spec) for spec in capture.inputs],
        "outputs": [dataclasses.asdict(spec) for spec in capture.outputs],
    }
    torch.export.save(capture.program, path, extra_files={"about.json": json.dumps(about)})


EXPORTER = Exporter(
    target="pt2",
    title="torch.export",
    file_name=lambda stem: f"{stem}.pt2",
    write=write,
    packages=("torch",),
    extra="torch",
    aliases=("exported",),
)
