"""Time and memory of `slide-deploy export -t all`, compared with the vendors' converters alone.

Both run alternately as whole processes, on the same Slide-Swin-T at 224×224. The vendors'
converters are called as in their documentation.
Run as `python benchmarks/export_cost.py` (or `make bench`).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=("t", "s", "b"), default="t")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--vendors", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.vendors:
        convert_with_vendors(arguments.vendors)
        return
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder, f"slide_swin_{arguments.model}.pth")
        write_checkpoint(arguments.model, checkpoint)
        sides = {
            "vendors' converters alone": [sys.executable, __file__, "--vendors", checkpoint],
            "slide-deploy export -t all": [
                *(sys.executable, "-m", "slide_deploy", "export", "-t", "all"),
                *(checkpoint, "-o", Path(folder, "deploy")),
            ],
        }
        taken: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
        for _ in range(arguments.runs):
            for side, command in sides.items():
                taken[side].append(timed([str(part) for part in command], folder))
    show(arguments.model, taken)


def write_checkpoint(size: str, path: Path) -> None:
    """Write a bare state dict with random weights, and non-zero learned shifts and biases."""
    import torch

    from slide_deploy.models import slide_swin

    torch.manual_seed(0)
    model = getattr(slide_swin, f"slide_swin_{size}")()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias" in name or "relative" in name:
                parameter.add_(0.05 * torch.randn_like(parameter))
    torch.save(model.state_dict(), path)


def convert_with_vendors(checkpoint: Path) -> None:
    """The conversions that a user would write by hand, of the fused model."""
    import coremltools as ct
    import openvino
    import torch

    from slide_deploy import fuse_module, load

    model = fuse_module(load(checkpoint).module)
    example = (torch.randn(1, 3, 224, 224),)
    folder = checkpoint.parent

    def onnx() -> None:
        torch.onnx.export(model, example, folder / "v.onnx", dynamo=True, external_data=False)

    def coreml() -> None:
        program = torch.export.export(model, example).run_decompositions({})
        precision = ct.precision.FLOAT32
        package = ct.convert(program, compute_precision=precision, skip_model_load=True)
        package.save(str(folder / "v.mlpackage"))

    def openvino_ir() -> None:
        program = torch.export.export(model, example)
        converted = openvino.convert_model(program)
        openvino.save_model(converted, folder / "v.xml", compress_to_fp16=False)

    def torchscript() -> None:
        with torch.no_grad():
            torch.jit.freeze(torch.jit.trace(model, example)).save(folder / "v.torchscript")

    converters: tuple[Callable[[], None], ...] = (onnx, coreml, openvino_ir, torchscript)
    for convert in converters:
        convert()


def timed(command: list[str], folder: str) -> tuple[float, float]:
    """Wall seconds, and peak memory of the largest process in GB."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{errors}")
    return time.perf_counter() - begin, usage.ru_maxrss * 1024 / 1e9


def show(size: str, taken: dict[str, list[tuple[float, float]]]) -> None:
    """Medians, and the ratio within each pair of runs."""
    alone, ours = taken.values()
    table = Table(title=f"Slide-Swin-{size.upper()}, 224×224, four targets, {len(ours)} runs each")
    for column in ("", "seconds (median)", "min … max", "peak memory, GB", "ratio"):
        table.add_column(column, justify="right" if column else "left")
    for side, runs in taken.items():
        seconds = [run[0] for run in runs]
        ratios = [run[0] / base[0] for run, base in zip(runs, alone, strict=True)]
        table.add_row(
            side,
            f"{statistics.median(seconds):.1f}",
            f"{min(seconds):.1f} … {max(seconds):.1f}",
            f"{max(run[1] for run in runs):.2f}",
            f"{statistics.median(ratios):.2f}",
        )
    Console().print(table)
    print("slide-deploy also hashes and verifies all four artifacts.")


if __name__ == "__main__":
    main()
