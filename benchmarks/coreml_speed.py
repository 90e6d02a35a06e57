"""Time and memory of the Core ML interpreter, compared with TorchScript on one thread.

Slide-Swin-T at 224×224 with random weights is exported to TorchScript, and to Core ML in float32
and float16. The three run alternately in one process; CPU time is counted, so that other processes
matter little. Memory is what numpy allocates while a package is read and run once, its weight file
included.
Run as `python benchmarks/coreml_speed.py` (or `make bench`).
"""

from __future__ import annotations

import os

# Before numpy and torch start threads.
os.environ.update(
    dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
)

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from export_cost import write_checkpoint
from rich.console import Console
from rich.table import Table

from slide_deploy import coreml

PRECISIONS = ("float32", "float16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        packages, torchscript = exported(Path(folder))
        memory = {precision: peak(package) for precision, package in packages.items()}
        times = measured(packages, torchscript, runs)
    table = Table(title=f"Slide-Swin-T, one image, one thread, median of {runs}")
    for column in ("", "CPU time", "of TorchScript's", "memory", "of the weights"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row("TorchScript", f"{times['TorchScript'] * 1e3:.0f} ms", "", "", "")
    for precision, (most, weights) in memory.items():
        table.add_row(
            f"interpreter, {precision}",
            f"{times[precision] * 1e3:.0f} ms",
            f"{times[precision] / times['TorchScript']:.2f} ×",
            f"{most / 1e6:.0f} MB",
            f"{most / weights:.1f} ×",
        )
    Console().print(table)


def exported(folder: Path) -> tuple[dict[str, Path], Path]:
    """The Core ML package of each precision, and the TorchScript file."""
    checkpoint = folder / "slide_swin_t.pth"
    write_checkpoint("t", checkpoint)
    for precision in PRECISIONS:
        targets = ["-t", "coreml", *(["-t", "torchscript"] if precision == "float32" else [])]
        command = [sys.executable, "-m", "slide_deploy", "export", *targets, str(checkpoint)]
        command += ["--precision", precision, "-o", str(folder / precision), "--quiet"]
        subprocess.run(command, check=True)
    (torchscript,) = folder.glob("float32/*.torchscript")
    return {p: next(folder.glob(f"{p}/*.mlpackage")) for p in PRECISIONS}, torchscript


def peak(package: Path) -> tuple[int, int]:
    """The most bytes that are allocated at once, and those of the weight file."""
    tracemalloc.start()
    interpreted(package)()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most, sum(file.stat().st_size for file in package.rglob("weight*.bin"))


def measured(packages: dict[str, Path], torchscript: Path, runs: int) -> dict[str, float]:
    """The median CPU time of each, in seconds, after a first run."""
    sides = {"TorchScript": scripted(torchscript)}
    sides |= {precision: interpreted(package) for precision, package in packages.items()}
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(runs + 1):
        for name, run in sides.items():
            begin = time.process_time()
            run()
            taken[name].append(time.process_time() - begin)
    return {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}


def interpreted(package: Path) -> Callable[[], object]:
    """Runs a package on an image of noise."""
    program = coreml.read(package)
    feeds = {program.inputs[0].name: image()}
    return lambda: coreml.evaluate(program, feeds)


def scripted(path: Path) -> Callable[[], object]:
    """Runs a TorchScript file on the same image."""
    module, x = torch.jit.load(path), torch.from_numpy(image())

    def run() -> object:
        with torch.inference_mode():
            return module(x)

    return run


def image() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)


if __name__ == "__main__":
    main()
