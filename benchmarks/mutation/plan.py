"""The models, sites and clean exports of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.mutation.mutation import Kind
from benchmarks.mutation.random_models import DETECTOR, Draw, draw
from benchmarks.mutation.sampling import KINDS

__all__ = [
    "BENCHES",
    "DIGITS",
    "GOLDEN",
    "QUANTIZED",
    "SLOWLY_COMPILED",
    "TARGETS",
    "Plan",
    "counts",
    "few",
    "half",
    "unusual",
]

ROOT = Path(__file__).parents[2]
TARGETS = ("onnx", "openvino", "coreml", "torchscript")

# Trained models of all families, and a small one with shifted windows.
DIGITS = tuple(sorted((ROOT / "examples/digits").glob("*.pth")))
BENCHES = (*DIGITS, ROOT / "tests/golden/micro_shifted_bare.pth")
GOLDEN = tuple(sorted((ROOT / "tests/golden").glob("*.pth")))

# Factors for kinds whose effect may be close to the noise, which need more sites.
SUBTLE = {"one weight, 2–5 %": 4, "LayerNorm epsilon": 2}
CONVERSION_SHARE = 0.5  # a conversion takes ten times as long as a patch

# What damages a float16 artifact and could be lost in its rounding.
HALF_KINDS = (
    "one weight, 2–5 %",
    "one weight, 30 %",
    "one channel, 3 %",
    "one tensor rounded to int8",
    "two channels swapped",
)


# Target and precision of the quantized artifacts that are broken.
QUANTIZED = (
    ("onnx", "w8a16"),
    ("onnx", "w8a8"),
    ("openvino", "w8"),
    ("openvino", "w8a8"),
    ("coreml", "w8"),
    ("coreml", "w8a8"),
    ("qnn", "w8a16"),
    ("qnn", "w8a8"),
    ("ethos-u", "w8a8"),
)


# Compiling a trained model takes minutes for these; they have a small model of each family instead.
SLOWLY_COMPILED = ("ethos-u",)
SMALL = tuple(replace(draw(seed), dynamic=False, lowering="auto") for seed in range(5))


@dataclass(frozen=True)
class Plan:
    """`sites` mutations of each kind and model, more of the subtle ones; `half_sites` of float16
    models; `curve_sites` of each kind of layer; `quantized_sites` in each way and file of
    `quantized`.
    `draws` and `half_draws` clean models at float32 and float16, and `unusual` of them whose
    artifacts are broken."""

    sites: int = 2
    draws: int = 125
    half_draws: int = 50
    unusual: int = 10
    half_sites: int = 4
    curve_sites: int = 4
    quantized_sites: int = 3
    seed: int = 1
    jobs: int = 2
    quantized: tuple[tuple[str, str], ...] = QUANTIZED
    benches: tuple[Path, ...] = BENCHES
    trained: tuple[Path, ...] = DIGITS

    def quantized_models(self, target: str) -> tuple[Path | Draw, ...]:
        """The models whose quantized artifacts for a target are broken."""
        return SMALL if target in SLOWLY_COMPILED else self.trained


def counts(sites: int) -> Mapping[str, int]:
    """The number of sites of each kind per model."""

    def count(kind: Kind) -> int:
        share = 1 if kind.tensors_only else CONVERSION_SHARE
        return max(1, round(sites * SUBTLE.get(kind.name, 1) * share))

    return {kind.name: count(kind) for kind in KINDS}


def few(sites: int) -> Mapping[str, int]:
    """The number of sites of each kind per unusual model: tensors only, half as many."""
    return {k.name: max(1, round(sites / 2)) if k.tensors_only else 0 for k in KINDS}


def half(sites: int) -> Mapping[str, int]:
    """The number of sites of each kind per float16 model."""
    return {kind.name: sites if kind.name in HALF_KINDS else 0 for kind in KINDS}


def unusual(number: int) -> tuple[Draw, ...]:
    """The first drawn models of `number` combinations of family and unusual weights."""
    # Steps of 6 change both the family and the weights.
    drawn = (draw(seed) for seed in range(6, 6 * 12 * 5, 6))
    chosen = [one for one in drawn if one.weights not in ("ordinary", DETECTOR)][:number]
    return tuple(replace(one, dynamic=False, lowering="auto") for one in chosen)
