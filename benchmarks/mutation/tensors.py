"""Errors in tensors: a weight is changed, the computation is not."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.mutation.mutation import Kind, Mutation
from slide_deploy.models.slide_attention import LocalAttention
from slide_deploy.models.window_attention import WindowAttention

__all__ = ["TENSOR_KINDS", "one_weight"]

Change = Callable[[Tensor], Tensor]
Attention = LocalAttention | WindowAttention

ONE_WEIGHT_MUCH, ONE_CHANNEL = "one weight, 30 %", "one channel, 3 %"
INT8 = "one tensor rounded to int8"
ONE_WEIGHT, CHANNELS, TAPS = "one weight, 2–5 %", "two channels swapped", "two taps swapped"
BIAS, KERNEL = "bias dropped", "kernel flipped or transposed"
ORDER, POSITION, OTHER_LAYER = "q/k/v order", "position bias zeroed", "another layer's weights"


def _change(names: tuple[str, ...], change: Change, module: nn.Module) -> None:
    with torch.no_grad():
        for name in names:
            parameter = module.get_parameter(name)
            parameter.copy_(change(parameter.clone()))


def _mutation(kind: str, detail: str, names: tuple[str, ...], change: Change) -> Mutation:
    site = names[0].rpartition(".")[0]
    return Mutation(kind, site, detail, partial(_change, names, change))


def _one_weight(
    kind: str, size: Callable[[random.Random], float], module: nn.Module, rng: random.Random
) -> Iterator[Mutation]:
    for name, parameter in module.named_parameters():
        index = rng.randrange(parameter.numel())
        factor = 1 + rng.choice((-1, 1)) * size(rng)
        yield one_weight(name, index, factor, kind)


def one_weight(name: str, index: int, factor: float, kind: str = ONE_WEIGHT) -> Mutation:
    """One number of a parameter, multiplied by `factor`."""
    change = partial(_scale_one, index, factor)
    return _mutation(kind, f"{name}[{index}] × {factor:g}", (name,), change)


def _scale_one(index: int, factor: float, value: Tensor) -> Tensor:
    value.reshape(-1)[index] *= factor
    return value


def _one_channel(module: nn.Module, rng: random.Random) -> Iterator[Mutation]:
    for name, layer in _layers(module, nn.Linear, nn.Conv2d, nn.LayerNorm):
        row = rng.randrange(layer.get_parameter("weight").shape[0])
        change = partial(_scale_row, row, 1 + rng.choice((-1, 1)) * 0.03)
        yield _mutation(ONE_CHANNEL, f"output {row}", (f"{name}.weight",), change)


def _scale_row(row: int, factor: float, value: Tensor) -> Tensor:
    value[row] *= factor
    return value


def _int8(module: nn.Module, rng: random.Random) -> Iterator[Mutation]:
    for name, _ in _layers(module, nn.Linear, nn.Conv2d):
        yield _mutation(INT8, "one scale for the tensor", (f"{name}.weight",), _rounded_to_int8)


def _rounded_to_int8(value: Tensor) -> Tensor:
    step = value.abs().max() / 127
    return (value / step).round() * step


def _channels(module: nn.Module, rng: random.Random) -> Iterator[Mutation]:
    for name, layer in _layers(module, nn.Linear, nn.Conv2d, nn.LayerNorm):
        a, b = rng.sample(range(layer.get_parameter("weight").shape[0]), 2)
        order = partial(_swap_rows, a, b)
        yield _mutation(CHANNELS, f"outputs {a} and {b}", _own(name, layer), order)


def _swap_rows(a: int, b: int, value: Tensor) -> Tensor:
    value[[a, b]] = value[[b, a]]
    return value


def _taps(module: nn.Module, rng: random.Random) -> Iterator[Mutation]:
    for name, attention in _attentions(module):
        if not isinstance(attention, LocalAttention):
            continue
        taps = attention.config.taps
        a, b = rng.sample(range(taps), 2)
        channel = rng.randrange(attention.config.head_dim)
        conv = f"{name}.shift"
        both = (f"{conv}.weight", f"{conv}.bias")
        swap_taps, swap_cells = partial(_swap_taps, taps, a, b), partial(_swap_cells, a, b)
        yield _mutation(TAPS, f"outputs of taps {a} and {b}, all channels", both, swap_taps)
        one = partial(_swap_rows, channel * taps + a, channel * taps + b)
        yield _mutation(TAPS, f"outputs of taps {a} and {b}, channel {channel}", both, one)
        yield _mutation(TAPS, f"kernel cells {a} and {b}, all kernels", both[:1], swap_cells)


def _swap_taps(taps: int, a: int, b: int, value: Tensor) -> Tensor:
    by_tap = value.reshape(-1, taps, *value.shape[1:])
    by_tap[:, [a, b]] = by_tap[:, [b, a]]
    return value


def _swap_cells(a: int, b: int, value: Tensor) -> Tensor:
    cells = value.reshape(len(value), -1)
    cells[:, [a, b]] = cells[:, [b, a]]
    return value


def _bias(module: nn.Module, rng: random.Random) -> Iterator[Mutation]:
    for name, layer in _layers(module, nn.Linear, nn.Conv2d, nn.LayerNorm):
        if getattr(layer, "bias", None) is not None and layer.get_parameter("bias").any():
            yield _mutation(BIAS, "zeros in its place", (f"{name}.bias",), torch.zeros_like)


def _kernel(module: nn.Module, rng: random.Random) -> Iterator[Mutation]:
    for name, _ in _layers(module, nn.Conv2d):
        weight = (f"{name}.weight",)
        yield _mutation(KERNEL, "flipped", weight, partial(torch.flip, dims=(-2, -1)))
        yield _mutation(KERNEL, "flipped left to right", weight, partial(torch.flip, dims=(-1,)))
        yield _mutation(KERNEL, "transposed", weight, _transposed)
    for name, layer in _layers(module, nn.Linear):
        rows, columns = layer.get_parameter("weight").shape
        if rows == columns:
            yield _mutation(KERNEL, "matrix transposed", (f"{name}.weight",), _transposed)


def _transposed(value: Tensor) -> Tensor:
    return value.transpose(-2, -1)


def _order(module: nn.Module, rng: random.Random) -> Iterator[Mutation]:
    for name, attention in _attentions(module):
        if isinstance(attention, LocalAttention):
            if attention.config.share_qkv:
                continue
            heads, depth, head_first = attention.config.heads, attention.config.head_dim, True
        else:
            heads, depth = attention.heads, attention.dim // attention.heads
            head_first = False
        for detail, rows in _misread(heads, depth, head_first).items():
            if not torch.equal(rows, torch.arange(len(rows))):
                qkv = attention.get_submodule("qkv")
                yield _mutation(ORDER, detail, _own(f"{name}.qkv", qkv), partial(_take, rows))


def _misread(heads: int, depth: int, head_first: bool) -> dict[str, Tensor]:
    """Rows of qkv in wrong orders of q, k and v, or of heads."""
    count = 3 * heads * depth
    shape = (heads, 3, depth) if head_first else (3, heads, depth)
    axis = 1 if head_first else 0
    rows = torch.arange(count).reshape(shape)

    def ordered(*order: int) -> Tensor:
        return rows.index_select(axis, torch.tensor(order)).reshape(-1)

    return {
        "k, q, v": ordered(1, 0, 2),
        "q, v, k": ordered(0, 2, 1),
        "v, k, q": ordered(2, 1, 0),
        "split by head and by q, k, v the other way round": rows.transpose(0, 1).reshape(-1),
    }


def _take(rows: Tensor, value: Tensor) -> Tensor:
    return value[rows]


def _position(module: nn.Module, rng: random.Random) -> Iterator[Mutation]:
    for name, attention in _attentions(module):
        if attention.relative_position_bias_table is not None:
            table = (f"{name}.relative_position_bias_table",)
            yield _mutation(POSITION, "zeros in its place", table, torch.zeros_like)


def _other_layer(module: nn.Module, rng: random.Random) -> Iterator[Mutation]:
    layers = dict(_layers(module, nn.Linear, nn.Conv2d, nn.LayerNorm))
    for name, layer in layers.items():
        shapes = _shapes(layer)
        alike = [n for n, other in layers.items() if n != name and _shapes(other) == shapes]
        if alike:
            other = rng.choice(alike)
            take = partial(_take_from, name, other)
            yield Mutation(OTHER_LAYER, name, f"those of {other}", take)


def _take_from(name: str, other: str, module: nn.Module) -> None:
    module.get_submodule(name).load_state_dict(module.get_submodule(other).state_dict())


def _shapes(layer: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in layer.named_parameters()}


def _layers(module: nn.Module, *types: type[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    return ((name, layer) for name, layer in module.named_modules() if isinstance(layer, types))


def _attentions(module: nn.Module) -> Iterator[tuple[str, Attention]]:
    for name, layer in module.named_modules():
        if isinstance(layer, Attention):
            yield name, layer


def _own(name: str, layer: nn.Module) -> tuple[str, ...]:
    return tuple(f"{name}.{key}" for key, _ in layer.named_parameters())


TENSOR_KINDS = (
    Kind(
        ONE_WEIGHT,
        "one number of a tensor is changed by 2–5 %",
        partial(_one_weight, ONE_WEIGHT, lambda rng: rng.uniform(0.02, 0.05)),
        True,
    ),
    Kind(
        ONE_WEIGHT_MUCH,
        "one number of a tensor is changed by 30 %",
        partial(_one_weight, ONE_WEIGHT_MUCH, lambda rng: 0.3),
        True,
    ),
    Kind(ONE_CHANNEL, "the weights of one output are changed by 3 %", _one_channel, True),
    Kind(INT8, "a tensor is rounded to 8 bits with one scale", _int8, True),
    Kind(CHANNELS, "two output channels of a layer are swapped", _channels, True),
    Kind(TAPS, "two taps or kernel cells of a shift are swapped", _taps, True),
    Kind(BIAS, "a layer's bias is zero", _bias, True),
    Kind(KERNEL, "convolution instead of correlation, columns instead of rows", _kernel, True),
    Kind(ORDER, "the rows of qkv are in another order", _order, True),
    Kind(POSITION, "an attention's position bias is zero", _position, True),
    Kind(
        OTHER_LAYER, "a layer has the weights of another layer of equal shape", _other_layer, True
    ),
)
