"""TorchScript: traced, frozen, with its input and output specs as an extra file."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

from slide_deploy.protocols import Exporter
from slide_deploy.types import Options, Precision

if TYPE_CHECKING:
    from slide_deploy.capture import Capture

__all__ = ["EXPORTER"]


def write(capture: Capture, path: Path, options: Options) -> None:
    """Write `path`. The file's `slide_deploy.json` holds specs and metadata."""
    import torch

    if options.precision is Precision.FLOAT16:
        capture = capture.in_half()
    with torch.no_grad():
        frozen = torch.jit.freeze(capture.traced)
    about = {
        "inputs": [dataclasses.asdict(spec) for spec in capture.inputs],
        "outputs": [dataclasses.asdict(spec) for spec in capture.outputs],
        "metadata": dict(capture.metadata),
    }
    # By way of memory: torch's own file writer ends the process where the disk is full.
    archive = io.BytesIO()
    torch.jit.save(frozen, archive, _extra_files={"slide_deploy.json": json.dumps(about)})
    path.write_bytes(archive.getbuffer())


EXPORTER = Exporter(
    target="torchscript",
    title="TorchScript",
    file_name=lambda stem: f"{stem}.torchscript",
    write=write,
    packages=("torch",),
    extra="torchscript",
    aliases=("pt", "jit"),
)
