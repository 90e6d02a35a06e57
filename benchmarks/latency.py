"""Latency of Slide-Swin-T in every lowering, compared with Swin-T, in one run per runtime.

Each variant is exported in float32 and timed in rounds that alternate between the variants, so
that ratios are reliable on a machine whose speed changes. Swin-T is the published module
(`swin.py`); "Swin-T, cleaned up" has slide-deploy's own operators and folded constants. The first
stage is also timed alone at 224 and 448 pixels, because all of its attention is local.
Run as `python benchmarks/latency.py` (or `make bench`).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from swin import SwinT
from torch import Tensor, nn

from slide_deploy import (
    Benchmark,
    TensorSpec,
    benchmark,
    fuse_module,
    lower,
    lowerings,
    registry,
    replace_attention,
    save_chart,
    timings_table,
    write_artifact,
    write_json,
)
from slide_deploy.capture import Capture
from slide_deploy.models.backbone import Stage
from slide_deploy.models.slide_attention import SlideAttention
from slide_deploy.models.slide_swin import SlideSwin, SlideSwinConfig, fold_windows

SWIN_T = SlideSwinConfig(
    image_size=(224, 224),
    embed_dim=96,
    depths=(2, 2, 6, 2),
    heads=(3, 6, 12, 24),
    slide_stages=0,
    window_size=7,
)
SLIDE_SWIN_T = replace(SWIN_T, slide_stages=2, window_size=56)

# Marks the lowering that `auto` takes.
AUTO_MARK = " (auto)"

# From this number of pixels on, only FEW and the marked lowering are compared: all eleven models
# with their activations need more than 24 GB.
LARGE = 8 * 448**2
FEW = ("Swin-T", "two branches", "im2col", "floor, no attention")


class Floor(nn.Module):
    """The projections of Slide Attention, without the attention."""

    def __init__(self, attention: SlideAttention) -> None:
        super().__init__()
        self.qkv, self.proj = attention.qkv, attention.proj

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        projected: Tensor = self.proj(q + k + v)
        return projected


class Alone(nn.Module):
    """The blocks of one stage on a map (B, H, W, C)."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, x: Tensor) -> Tensor:
        return self.stage.attend(x)


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

    def show(found: Benchmark, title: str, stem: str) -> None:
        console = Console()
        console.rule(title)
        console.print(timings_table(found))
        save_chart(found, chosen.output / f"{stem}.png", title)
        write_json(found, chosen.output / f"{stem}.json")

    for target in chosen.targets:
        for size in chosen.sizes:
            for batch in chosen.batches:
                title = f"{target}, {size}×{size}, batch {batch}"
                made = models(target, size, batch)
                # The same number of pixels per round at any size, but at least one call.
                calls = max(1, 4 * 224**2 // (batch * size**2))
                found = measure(target, made, chosen.rounds, chosen.threads, calls)
                show(found, title, f"{target}-{size}-{batch}")
        found = measure(target, stages(target), chosen.rounds, chosen.threads)
        show(found, f"{target}, the first stage alone", f"{target}-stage")


Variant = tuple[str, nn.Module, TensorSpec, TensorSpec]


def measure(
    target: str, made: Iterator[Variant], rounds: int, threads: int, calls: int = 4
) -> Benchmark:
    """Export every variant for one target and time them; ratios are relative to the first."""
    exporter = registry.exporter(target)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, module, given, made_of in made:
            print(f"exporting {name} to {exporter.title}", flush=True)
            capture = Capture(module, (given,), (made_of,), {})
            record = write_artifact(target, name, capture, Path(folder))
            paths.append(Path(folder, record.path))
        return benchmark(paths, threads=threads, rounds=rounds, calls=calls)


def models(target: str, size: int, batch: int) -> Iterator[Variant]:
    """Whole models, starting with Swin-T."""
    image = TensorSpec("image", (batch, 3, size, size))
    for name, module in variants(target, size):
        if batch * size**2 < LARGE or name in FEW or name.endswith(AUTO_MARK):
            yield name, module, image, TensorSpec("logits", (batch, 1000))


def variants(target: str, size: int) -> Iterator[tuple[str, nn.Module]]:
    """Swin-T, then Slide-Swin-T in every lowering; that of `auto` is marked."""
    torch.manual_seed(0)
    yield "Swin-T", SwinT(size).eval().requires_grad_(False)
    swin = random_model(replace(SWIN_T, image_size=(size, size)))
    yield "Swin-T, cleaned up", fold_windows(swin)
    slide = random_model(replace(SLIDE_SWIN_T, image_size=(size, size)))
    yield "two branches", slide
    fused, inputs = fold_windows(fuse_module(slide)), (TensorSpec("image", (1, 3, size, size)),)
    default = {layer.form for layer in lower(fused, inputs, "auto", target, {})[1]}
    for lowering in lowerings():
        name = lowering.name + AUTO_MARK if lowering.name in default else lowering.name
        yield name, lower(fused, inputs, lowering.name, target, {})[0]
    yield "floor, no attention", replace_attention(slide, lambda module, _: Floor(module))


def stages(target: str) -> Iterator[Variant]:
    """The first stage, lowered by `auto`, at two image sizes."""
    for size in (224, 448):
        fused = fuse_module(random_model(replace(SLIDE_SWIN_T, image_size=(size, size))))
        lowered = lower(fused, (TensorSpec("image", (1, 3, size, size)),), "auto", target, {})[0]
        stage = lowered.get_submodule("layers.0")
        assert isinstance(stage, Stage)
        side = size // SLIDE_SWIN_T.patch_size
        tokens = TensorSpec("map", (1, side, side, SLIDE_SWIN_T.embed_dim))
        yield f"stage 1 of {size} px", Alone(stage).eval(), tokens, replace(tokens, name="out")


def random_model(config: SlideSwinConfig) -> nn.Module:
    """A model with random weights, and non-zero learned shifts and biases."""
    torch.manual_seed(0)
    model = SlideSwin(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "bias" in name or "relative" in name:
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


if __name__ == "__main__":
    main()
