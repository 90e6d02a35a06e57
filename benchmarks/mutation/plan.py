"""The models, sites and clean exports of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.mutation.mutation import Kind
from benchmarks.mutation.sampling import KINDS

__all__ = ["BENCHES", "GOLDEN", "TARGETS", "Plan", "counts"]

ROOT = Path(__file__).parents[2]
TARGETS = ("onnx", "openvino", "coreml", "torchscript")

# A trained model, and a small one with shifted windows.
BENCHES = (
    ROOT / "examples/digits/slide_swin_digits.pth",
    ROOT / "tests/golden/micro_shifted_bare.pth",
)
GOLDEN = tuple(sorted((ROOT / "tests/golden").glob("*.pth")))

# Factors for kinds whose effect may be close to the noise, which need more sites.
SUBTLE = {"one weight, 2–5 %": 6, "LayerNorm epsilon": 4}
CONVERSION_SHARE = 0.5  # a conversion takes ten times as long as a patch


@dataclass(frozen=True)
class Plan:
    """`sites` mutations of each kind and model, more of the subtle ones; `seeds` clean models."""

    sites: int = 8
    seeds: int = 50
    seed: int = 1
    jobs: int = 2
    benches: tuple[Path, ...] = BENCHES


def counts(sites: int) -> Mapping[str, int]:
    """The number of sites of each kind per model."""

    def count(kind: Kind) -> int:
        share = 1 if kind.tensors_only else CONVERSION_SHARE
        return max(1, round(sites * SUBTLE.get(kind.name, 1) * share))

    return {kind.name: count(kind) for kind in KINDS}
