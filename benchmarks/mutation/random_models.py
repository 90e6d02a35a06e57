"""Randomly drawn models of every family, whose clean exports must pass."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import slide_deploy
from benchmarks.mutation.bench import Bench
from benchmarks.mutation.weights import WEIGHTS
from slide_deploy import Options, TensorSpec
from slide_deploy.models.slide_cswin import SlideCSwin, SlideCSwinConfig
from slide_deploy.models.slide_nat import SlideNat, SlideNatConfig
from slide_deploy.models.slide_pvt import SlidePvt, SlidePvtConfig
from slide_deploy.models.slide_pvt_v2 import SlidePvtV2, SlidePvtV2Config
from slide_deploy.models.slide_swin import SlideSwin, SlideSwinConfig

__all__ = ["DETECTOR", "Draw", "draw", "random_bench"]

OUTPUTS = (0, 1, 2, 3, 10, 100)
LOWERINGS = ("auto", "auto", "auto", "depthwise", "flat")
DETECTOR = "sigmoid"
SIDE = 16


@dataclass(frozen=True)
class Draw:
    """The settings of one model and of its export; `outputs` is 0 for pooled features."""

    seed: int
    family: str
    weights: str
    outputs: int
    dynamic: bool
    lowering: str

    @property
    def name(self) -> str:
        """The name of the model in tables."""
        return f"{self.family}_{self.weights}_{self.seed}"

    def options(self, precision: str) -> Options:
        """The options of its export."""
        return Options(precision=precision, dynamic=self.dynamic, lowering=self.lowering)


def draw(seed: int) -> Draw:
    """The same for the same seed. Any 55 successive seeds hold every family with all weights."""
    rng = random.Random(f"draw {seed}")
    kinds = (*WEIGHTS, DETECTOR)
    return Draw(
        seed,
        family=list(BUILD)[seed % len(BUILD)],
        weights=kinds[seed // len(BUILD) % len(kinds)],
        outputs=rng.choice(OUTPUTS),
        dynamic=rng.random() < 0.125,
        lowering=rng.choice(LOWERINGS),
    )


def random_bench(drawn: Draw, folder: Path, precision: str = "float32") -> Bench:
    """The drawn model, loaded from its checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(f"model {drawn.seed}")
    torch.manual_seed(drawn.seed)
    outputs = drawn.outputs
    if drawn.weights in (DETECTOR, "headbias"):
        outputs = outputs or 3
    module = BUILD[drawn.family](rng, outputs)
    WEIGHTS.get(drawn.weights, WEIGHTS["ordinary"])(module, rng)
    options = drawn.options(precision)
    if drawn.weights == DETECTOR:
        detector = Detector(module.eval(), rng.choice((2.0, 4.6, 8.0, 12.0)))
        spec = TensorSpec("image", (1, 3, *module.config.image_size))
        return Bench(
            drawn.name, slide_deploy.wrap(detector, (spec,), name=drawn.name), folder, options
        )
    checkpoint = folder / f"{drawn.name}.pth"
    config = {name: _plain(v) for name, v in dataclasses.asdict(module.config).items()}
    torch.save({"model": module.state_dict(), "config": config}, checkpoint)
    model = slide_deploy.load(checkpoint, image_size=module.config.image_size)
    return Bench(model.name, model, folder, options)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


class Detector(nn.Module):
    """Scores as of a detector's head: sigmoid(logit − offset), close to 0 on most inputs."""

    def __init__(self, backbone: nn.Module, offset: float) -> None:
        super().__init__()
        self.backbone, self.offset = backbone, offset

    def forward(self, image: Tensor) -> Tensor:
        """Scores of an image."""
        return torch.sigmoid(self.backbone(image) - self.offset)


def _common(rng: random.Random, outputs: int) -> dict[str, Any]:
    return {
        "image_size": (SIDE, SIDE),
        "depths": rng.choice(((1, 1), (2, 1), (1, 2))),
        "heads": rng.choice(((1, 2), (2, 4), (2, 2))),
        "slide_stages": 1,
        "num_classes": outputs,
    }


def _swin(rng: random.Random, outputs: int) -> nn.Module:
    side = rng.choice((SIDE, 2 * SIDE))
    own = {"slide_stages": rng.choice((1, 2)), "image_size": (side, side)}
    return SlideSwin(
        SlideSwinConfig(**_common(rng, outputs) | own, embed_dim=rng.choice((8, 16)), window_size=2)
    )


def _cswin(rng: random.Random, outputs: int) -> nn.Module:
    config = _common(rng, outputs) | {"heads": (2, 4)}
    return SlideCSwin(SlideCSwinConfig(**config, embed_dim=16, split_sizes=(1, 2)))


def _nat(rng: random.Random, outputs: int) -> nn.Module:
    return SlideNat(SlideNatConfig(**_common(rng, outputs), embed_dim=8, neighborhood=3))


def _pyramid(rng: random.Random, outputs: int) -> dict[str, Any]:
    sizes = {"embed_dims": (8, 16), "mlp_ratios": (4.0, 2.0), "sr_ratios": (1, rng.choice((1, 2)))}
    return _common(rng, outputs) | sizes


def _pvt(rng: random.Random, outputs: int) -> nn.Module:
    config = _pyramid(rng, outputs) | {"sr_ratios": (1, 1)}  # its class token needs plain attention
    return SlidePvt(SlidePvtConfig(**config, position_size=(SIDE, SIDE)))


def _pvt_v2(rng: random.Random, outputs: int) -> nn.Module:
    return SlidePvtV2(SlidePvtV2Config(**_pyramid(rng, outputs)))


BUILD: dict[str, Callable[[random.Random, int], Any]] = {
    "swin": _swin,
    "pvt": _pvt,
    "pvt_v2": _pvt_v2,
    "cswin": _cswin,
    "nat": _nat,
}
