"""Slide-Swin-T through every form of its attention, beside Swin-T, in one run per runtime.

Each variant is exported by this project's own exporters in float32 and timed through its own
runtime, interleaved with the others, so that ratios hold on a machine whose speed drifts.
Swin-T is the standard one (windows of 7, shifted), built from the same blocks with no Slide
Attention and exported as it is. Run as `python benchmarks/latency.py` (or `make bench`).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

from slide_deploy import registry
from slide_deploy.bench import Benchmark, bench
from slide_deploy.capture import Capture
from slide_deploy.exporting import write_artifact
from slide_deploy.fusion import fuse, replace_attention
from slide_deploy.jsonio import write_json
from slide_deploy.lowering.choice import AUTO, lower_for
from slide_deploy.lowering.forms import forms
from slide_deploy.models.slide_attention import SlideAttention
from slide_deploy.models.slide_swin import SlideSwin, SlideSwinConfig
from slide_deploy.report.timings import save_chart, timings_table
from slide_deploy.types import Options, TensorSpec

SWIN_T = SlideSwinConfig(
    image_size=(224, 224),
    embed_dim=96,
    depths=(2, 2, 6, 2),
    heads=(3, 6, 12, 24),
    slide_stages=0,
    window_size=7,
)
SLIDE_SWIN_T = replace(SWIN_T, slide_stages=2, window_size=56)


class Floor(nn.Module):
    """Slide Attention without its attention: the projections alone, which every form has."""

    def __init__(self, attention: SlideAttention) -> None:
        super().__init__()
        self.qkv, self.proj = attention.qkv, attention.proj

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        projected: Tensor = self.proj(q + k + v)
        return projected


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", nargs="+", default=["onnx", "openvino", "torchscript"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[224])
    parser.add_argument("--batches", nargs="+", type=int, default=[1])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    chosen = parser.parse_args()
    chosen.output.mkdir(parents=True, exist_ok=True)
    console = Console()
    for target in chosen.targets:
        for size in chosen.sizes:
            for batch in chosen.batches:
                title = f"{target}, {size}×{size}, batch {batch}"
                found = measure(target, size, batch, chosen.rounds, chosen.threads)
                console.rule(title)
                console.print(timings_table(found))
                stem = f"{target}-{size}-{batch}"
                save_chart(found, chosen.output / f"{stem}.png", title)
                write_json(found, chosen.output / f"{stem}.json")


def measure(target: str, size: int, batch: int, rounds: int, threads: int) -> Benchmark:
    """Export every variant for one target and time them in turn; ratios are to Swin-T."""
    exporter = registry.exporter(target)
    image = TensorSpec("image", (batch, 3, size, size))
    logits = TensorSpec("logits", (batch, 1000))
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, module in variants(target, size):
            print(f"exporting {name} to {exporter.title}", flush=True)
            capture = Capture(module, (image,), (logits,), {})
            record = write_artifact(exporter, name, capture, Path(folder), Options(batch=batch))
            paths.append(Path(folder, record.path))
        return bench(paths, threads=threads, rounds=rounds, calls=4, progress=lambda _: None)


def variants(target: str, size: int) -> Iterator[tuple[str, nn.Module]]:
    """Swin-T first: ratios are to it."""
    image_size = (size, size)
    yield "Swin-T", drawn(replace(SWIN_T, image_size=image_size))
    slide = drawn(replace(SLIDE_SWIN_T, image_size=image_size))
    fused = fuse(slide)
    inputs = (TensorSpec("image", (1, 3, size, size)),)
    yield "two branches", slide
    for form in forms():
        yield form.name, lower_for(fused, inputs, form.name, target, {})[0]
    yield AUTO, lower_for(fused, inputs, AUTO, target, {})[0]
    yield "floor (no attention)", replace_attention(slide, lambda module, _: Floor(module))


def drawn(config: SlideSwinConfig) -> nn.Module:
    """Random weights, the learned path and every bias away from zero."""
    torch.manual_seed(0)
    model = SlideSwin(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "bias" in name or "relative" in name:
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


if __name__ == "__main__":
    main()
