"""Compiles each lowering for Arm's Ethos-U, and prints Vela's estimates: cycles, memory, and the
operators that stay on the CPU.

Attentions of two stages of Slide-Swin-T are compiled, with random weights. The estimates do not
depend on them. Run in the environment of `make test-ethos-u` as
`.venv-ethos-u/bin/python benchmarks/ethos_u_lowerings.py [LOWERING …]`; it takes minutes for each.
"""

from __future__ import annotations

import json
import sys
import tempfile
from itertools import product
from pathlib import Path

import torch

from slide_deploy import Options, TensorSpec, export, lowerings, wrap
from slide_deploy.models.slide_attention import AttentionConfig, SlideAttention

DEVICES = ("ethos-u55-128", "ethos-u85-256")

# Side of the map, channels, heads of the first and of the third stage.
STAGES = ((56, 96, 3), (14, 384, 12))


def main() -> None:
    names = sys.argv[1:] or [lowering.name for lowering in lowerings()]
    print("| stage | lowering | device | cycles | time | SRAM | on CPU |")
    print("|---|---|---|--:|--:|--:|---|")
    for side, dim, heads in STAGES:
        for name, device in product(names, DEVICES):
            row = cells(side, dim, heads, name, device)
            print(f"| {side}×{side}×{dim} | {name} | {device} | {' | '.join(row)} |", flush=True)


def cells(side: int, dim: int, heads: int, lowering: str, device: str) -> tuple[str, ...]:
    """The cells of a row, after that of the device."""
    torch.manual_seed(0)
    attention = SlideAttention(AttentionConfig(dim, heads)).eval().requires_grad_(False)
    model = wrap(torch.nn.Sequential(attention), [TensorSpec("tokens", (1, side, side, dim))])
    options = Options(
        precision="w8a8",
        calibration="synthetic",
        lowering=lowering,
        target_options={"device": device},
    )
    with tempfile.TemporaryDirectory() as folder:
        try:
            [record] = export(model, "ethos-u", Path(folder), options).artifacts
        except Exception as error:  # the compilers raise many kinds
            return ("–", "–", "–", f"not compiled: {str(error).splitlines()[0][:100]}")
        content = json.loads(Path(folder, record.path, f"{device}.json").read_text())
    cycles = sum(float(own["cycles_total"]) for own in content["vela"])
    seconds = sum(float(own["inference_time"]) for own in content["vela"])
    sram = sum(float(own["sram_memory_used"]) for own in content["vela"])
    on_cpu = ", ".join(content["on_cpu"]) or "none"
    return f"{cycles:,.0f}", f"{1e3 * seconds:.2f} ms", f"{sram:.0f} KiB", on_cpu


if __name__ == "__main__":
    main()
