"""Kinds of weights, ordinary and unusual, that a trained model may have."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import torch
from torch import nn

__all__ = ["DESCRIPTIONS", "WEIGHTS"]

FROZEN = "dep_conv"  # the fixed one-hot shifts
ATTENTION = ("qkv", "q", "kv")


def _ordinary(module: nn.Module, rng: random.Random) -> None:
    """As after training: biases, tables and positions that are not zero, layers of other scale."""
    with torch.no_grad():
        for _, layer in _layers(module):
            layer.get_parameter("weight").mul_(rng.uniform(0.7, 2.5))
        for name, parameter in module.named_parameters():
            own = name.rpartition(".")[2]
            if own in ("relative_position_bias_table", "rpb"):
                parameter.normal_(std=0.5)
            elif "bias" in own or "norm" in name or own.startswith(("pos_embed", "cls_token")):
                parameter.add_(0.1 * torch.randn_like(parameter))


def _peaked(module: nn.Module, rng: random.Random) -> None:
    """Attention that selects few pixels: large logits."""
    _scale(module, lambda: rng.uniform(3, 8), only=ATTENTION)


def _quiet(module: nn.Module, rng: random.Random) -> None:
    """Layers that hardly change what they receive."""
    _scale(module, lambda: 0.03)


def _biased(module: nn.Module, rng: random.Random) -> None:
    """Biases that are large beside the weights' results."""
    spread = rng.choice((3.0, 10.0, 30.0))
    with torch.no_grad():
        for _, layer in _layers(module):
            if getattr(layer, "bias", None) is not None:
                bias = layer.get_parameter("bias")
                bias.add_(spread * torch.randn_like(bias))


def _huge(module: nn.Module, rng: random.Random) -> None:
    """All weights × 1000."""
    _scale(module, lambda: 1e3)


def _tiny(module: nn.Module, rng: random.Random) -> None:
    """All weights ÷ 1000."""
    _scale(module, lambda: 1e-3)


def _mixed(module: nn.Module, rng: random.Random) -> None:
    """Layers whose scales differ by up to 10⁴."""
    _scale(module, lambda: 10 ** rng.uniform(-2, 2))


def _loud(module: nn.Module, rng: random.Random) -> None:
    """One output of every layer is 100 times as large."""
    with torch.no_grad():
        for _, layer in _layers(module):
            weight = layer.get_parameter("weight")
            weight[rng.randrange(len(weight))] *= 100


def _sparse(module: nn.Module, rng: random.Random) -> None:
    """Nine of ten weights are zero."""
    with torch.no_grad():
        for _, layer in _layers(module):
            weight = layer.get_parameter("weight")
            weight.mul_(torch.rand_like(weight) < 0.1)


def _head_bias(module: nn.Module, rng: random.Random) -> None:
    """The bias of the head is large beside the scores."""
    with torch.no_grad():
        module.get_parameter("head.bias").add_(rng.choice((30.0, 300.0, 1000.0)))


def _scale(module: nn.Module, factor: Callable[[], float], only: tuple[str, ...] = ()) -> None:
    with torch.no_grad():
        for name, layer in _layers(module):
            if not only or name.rpartition(".")[2] in only:
                layer.get_parameter("weight").mul_(factor())


def _layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and not name.endswith(FROZEN):
            yield name, layer


_UNUSUAL: dict[str, Callable[[nn.Module, random.Random], None]] = {
    "peaked": _peaked,
    "quiet": _quiet,
    "biased": _biased,
    "huge": _huge,
    "tiny": _tiny,
    "mixed": _mixed,
    "loud": _loud,
    "sparse": _sparse,
    "headbias": _head_bias,
}


def _after_ordinary(
    change: Callable[[nn.Module, random.Random], None],
) -> Callable[[nn.Module, random.Random], None]:
    def apply(module: nn.Module, rng: random.Random) -> None:
        _ordinary(module, rng)
        change(module, rng)

    return apply


# Each kind changes a module's weights in place.
WEIGHTS: dict[str, Callable[[nn.Module, random.Random], None]] = {
    "ordinary": _ordinary,
    **{name: _after_ordinary(change) for name, change in _UNUSUAL.items()},
}

DESCRIPTIONS = {
    name: " ".join((change.__doc__ or "").split())
    for name, change in {"ordinary": _ordinary, **_UNUSUAL}.items()
}
