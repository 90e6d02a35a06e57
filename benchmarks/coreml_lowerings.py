"""Counts the operators of each lowering in Core ML, which can only be timed on Apple's systems.

One Slide Attention of Slide-Swin-T's first stage (56×56, 96 channels, 3 heads) is exported in each
lowering to an ML program and read back from disk. Each operator starts a kernel, and intermediate
values are written to memory. The Neural Engine is fast at convolutions on maps of rank 4, and slow
at gathers and strided slices.
Run as `python benchmarks/coreml_lowerings.py` (or `make bench`).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from slide_deploy import TensorSpec, coreml, fuse_module, lowerings, write_artifact
from slide_deploy.capture import Capture
from slide_deploy.models.slide_attention import AttentionConfig, SlideAttention

SIDE, DIM, HEADS = 56, 96, 3
BYTES = 4


def main() -> None:
    table = Table(title=f"Core ML, one attention, {SIDE}×{SIDE}×{DIM}, {HEADS} heads, float32")
    for column in (
        "lowering",
        "operators",
        "convolutions",
        "gathers",
        "strided slices",
        "rank",
        "MB",
    ):
        table.add_column(column, justify="left" if column == "lowering" else "right")
    for name, program in programs():
        counts = coreml.histogram(program)
        shapes = [value.type.shape or () for value in made(program)]
        table.add_row(
            name,
            str(sum(counts.values())),
            str(counts.get("conv", 0)),
            str(sum(count for kind, count in counts.items() if kind.startswith("gather"))),
            str(sum(map(has_stride, program.operations))),
            str(max(map(len, shapes))),
            f"{sum(BYTES * math.prod(size or 1 for size in shape) for shape in shapes) / 1e6:.0f}",
        )
    Console().print(table)
    print("MB: size of all intermediate values, each counted once.")


def programs() -> Iterator[tuple[str, coreml.Program]]:
    """The name and the program of each lowering, read back from its package."""
    torch.manual_seed(0)
    attention = SlideAttention(AttentionConfig(DIM, HEADS)).eval().requires_grad_(False)
    fused = fuse_module(torch.nn.Sequential(attention))[0]
    tokens = TensorSpec("tokens", (1, SIDE, SIDE, DIM))
    for lowering in lowerings():
        capture = Capture(
            lowering.build(fused).eval(), (tokens,), (TensorSpec("out", tokens.shape),), {}
        )
        with tempfile.TemporaryDirectory() as folder:
            record = write_artifact("coreml", lowering.name, capture, Path(folder))
            yield lowering.name, coreml.read(Path(folder, record.path))


def made(program: coreml.Program) -> Iterator[coreml.Value]:
    """The values that are computed at run time."""
    for operation in program.operations:
        if operation.type != "const":
            yield from operation.outputs


def has_stride(operation: coreml.Operation) -> bool:
    """Whether the operation is a slice with a step other than 1."""
    given = operation.inputs.get("stride", ()) if operation.type.startswith("slice") else ()
    return any(isinstance(step, coreml.Constant) and bool((step.data != 1).any()) for step in given)


if __name__ == "__main__":
    main()
