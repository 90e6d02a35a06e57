"""Errors in the numbers of a quantized artifact.

An artifact is a dictionary of arrays. Quantized weights named NAME are NAME_quantized, NAME_scale
and, in formats that have them, NAME_zero_point and NAME_axis; quantized activations have no
integers. All other arrays are what stays in floating point.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

import numpy as np

__all__ = ["EDITS", "Edit", "NoSite"]

Values = dict[str, np.ndarray]
Edit = Callable[[Values, random.Random], str]


class NoSite(LookupError):
    """An artifact has nothing that could be broken in this way."""


def _chosen(rng: random.Random, names: Sequence[str]) -> str:
    if not names:
        raise NoSite
    return rng.choice(names)


def _named(values: Mapping[str, np.ndarray], end: str) -> list[str]:
    return sorted(name for name in values if name.endswith(end))


def _weights(values: Mapping[str, np.ndarray]) -> list[str]:
    """Names of quantized weights, without the ending."""
    names = (name.removesuffix("_quantized") for name in _named(values, "_quantized"))
    return [name for name in names if f"{name}_scale" in values]


def _ranges(values: Mapping[str, np.ndarray]) -> list[str]:
    """Names of quantized activations: they have a scale and no integers."""
    names = (name.removesuffix("_scale") for name in _named(values, "_scale"))
    return [n for n in names if f"{n}_quantized" not in values and not n.endswith("_quantized")]


def _one_integer(values: Values, rng: random.Random) -> str:
    name = _chosen(rng, _weights(values))
    integers = values[f"{name}_quantized"].reshape(-1)
    index = rng.randrange(integers.size)
    _step(integers, index)
    return f"{name}[{index}]"


def _step(integers: np.ndarray, index: int) -> None:
    """Change an integer by one, upwards where its type permits."""
    own = int(integers[index])
    integers[index] = own + 1 if own < np.iinfo(integers.dtype).max else own - 1


def _scaled(names: Callable[[Mapping[str, np.ndarray]], list[str]], factor: float) -> Edit:
    def edit(values: Values, rng: random.Random) -> str:
        name = _chosen(rng, names(values))
        scale = values[f"{name}_scale"].reshape(-1)
        scale[rng.randrange(scale.size)] *= np.float32(factor)
        return name

    return edit


def _zero_point(values: Values, rng: random.Random) -> str:
    every = [*_weights(values), *_ranges(values)]
    name = _chosen(rng, [name for name in every if f"{name}_zero_point" in values])
    zero = values[f"{name}_zero_point"].reshape(-1)
    index = rng.randrange(zero.size)
    _step(zero, index)
    return name


def _exchanged(values: Values, rng: random.Random) -> str:
    """Two weights with scales of one shape get each other's."""
    pairs = [
        (a, b)
        for a in _weights(values)
        for b in _weights(values)
        if a < b and values[f"{a}_scale"].shape == values[f"{b}_scale"].shape
    ]
    first, other = (f"{name}_scale" for name in rng.choice(pairs))
    values[first], values[other] = values[other], values[first]
    return f"{first}, {other}"


def _other_channels(values: Values, rng: random.Random) -> str:
    name = _chosen(rng, [n for n in _weights(values) if values[f"{n}_scale"].size > 1])
    scale = f"{name}_scale"
    values[scale] = np.roll(values[scale].reshape(-1), 1).reshape(values[scale].shape)
    return name


def _other_axis(values: Values, rng: random.Random) -> str:
    """The scales of the rows of square weights are taken for those of the columns."""
    fits = []
    for name in _weights(values):
        shape = values[f"{name}_quantized"].shape
        if len(shape) > 1 and shape[0] == shape[1] == values[f"{name}_scale"].size > 1:
            fits.append(name)
    name = _chosen(rng, fits)
    if f"{name}_axis" in values:
        values[f"{name}_axis"] = 1 - values[f"{name}_axis"]
    else:
        values[f"{name}_scale"] = values[f"{name}_scale"].swapaxes(0, 1).copy()
    return name


def _bias_scale(values: Values, rng: random.Random) -> str:
    name = _chosen(rng, _named(values, "_quantized_scale"))
    values[name] *= np.float32(1.05)
    return name


def _float_weight(values: Values, rng: random.Random) -> str:
    names = [n for n, v in values.items() if v.dtype.kind == "f" and not n.endswith("_scale")]
    name = _chosen(rng, sorted(n for n in names if values[n].size > 1 and values[n].any()))
    values[name] *= np.float32(1.05)
    return name


EDITS: Mapping[str, Edit] = {
    "one integer off by one": _one_integer,
    "scale of weights 5 % too large": _scaled(_weights, 1.05),
    "scale of weights 5 % too small": _scaled(_weights, 0.95),
    "zero point off by one": _zero_point,
    "scales of another layer": _exchanged,
    "scales of other channels": _other_channels,
    "scales along the other axis": _other_axis,
    "scale of a bias 5 % off": _bias_scale,
    "range 5 % too wide": _scaled(_ranges, 1.05),
    "range clipped to 80 %": _scaled(_ranges, 0.8),
    "range never calibrated": _scaled(_ranges, 6.0),
    "float tensor 5 % off": _float_weight,
}
