"""Latency of Slide-Swin-T and Swin-T in float32 and with 8 bits, in one run per runtime.

Each model is exported in float32 and quantized as `export --precision w8a8` does, on random images.
All artifacts of a runtime are timed in rounds that alternate between them, so that their ratios are
reliable on a machine whose speed changes. Latency does not depend on the values of weights.
Run as `python benchmarks/reduced_precision.py` (or `make bench`).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from latency import SLIDE_SWIN_T, random_model
from rich.console import Console
from swin import SwinT
from torch import nn

from slide_deploy import (
    Options,
    TensorSpec,
    benchmark,
    fuse_module,
    lower,
    registry,
    save_chart,
    timings_table,
    write_artifact,
    write_json,
)
from slide_deploy.capture import Capture
from slide_deploy.models.slide_swin import fold_windows
from slide_deploy.protocols import Calibration
from slide_deploy.types import Precision

IMAGE, LOGITS = TensorSpec("image", (1, 3, 224, 224)), TensorSpec("logits", (1, 1000))

CALIBRATION_IMAGES = 4  # latency does not depend on the ranges


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", nargs="+", default=["openvino", "onnx"])
    parser.add_argument("--lowerings", nargs="+", default=["flat", "two-level", "depthwise"])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    chosen = parser.parse_args()
    chosen.output.mkdir(parents=True, exist_ok=True)
    for target in chosen.targets:
        with tempfile.TemporaryDirectory() as folder:
            paths = [
                path
                for name, module in models(target, chosen.lowerings)
                for path in artifacts(target, name, module, Path(folder))
            ]
            found = benchmark(paths, threads=chosen.threads, rounds=chosen.rounds, calls=2)
        title = f"{target}, float32 and w8a8"
        console = Console()
        console.rule(title)
        console.print(timings_table(found))
        save_chart(found, chosen.output / f"{target}-w8a8.png", title)
        write_json(found, chosen.output / f"{target}-w8a8.json")


def models(target: str, wanted: list[str]) -> Iterator[tuple[str, nn.Module]]:
    """Slide-Swin-T in the lowerings `wanted`, then Swin-T."""
    fused = fold_windows(fuse_module(random_model(SLIDE_SWIN_T)))
    for lowering in wanted:
        yield f"Slide-Swin-T, {lowering}", lower(fused, (IMAGE,), lowering, target, {})[0]
    torch.manual_seed(0)
    yield "Swin-T", SwinT(224).eval().requires_grad_(False)


def artifacts(target: str, name: str, module: nn.Module, folder: Path) -> Iterator[Path]:
    """The float32 and the w8a8 artifact of a model."""
    exporter = registry.exporter(target)
    print(f"exporting and quantizing {name} for {exporter.title}", flush=True)
    record = write_artifact(target, name, Capture(module, (IMAGE,), (LOGITS,), {}), folder)
    yield folder / record.path
    random = np.random.default_rng(0)
    images = [random.standard_normal(IMAGE.shape, np.float32) for _ in range(CALIBRATION_IMAGES)]
    calibration = Calibration([{IMAGE.name: image} for image in images], {})
    assert exporter.quantize is not None
    for kind in ("asymmetric", "symmetric"):
        path = folder / exporter.file_name(f"{name}, w8a8 {kind}")
        options = Options(precision=Precision.W8A8, target_options={"activations": kind})
        exporter.quantize(folder / record.path, path, calibration, options)
        yield path


if __name__ == "__main__":
    main()
