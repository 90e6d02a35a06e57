"""Finds the parameters of Slide Attention in a module, and the attentions that they may form.

An implementation under other names (arXiv 2304.04237, and the variants in the same authors' DAT
repository) has the same parameters: two projections, shift pairs, and optionally a position bias.
Their shapes do not determine the computation. So each possible computation is a hypothesis, an
attention of this package, which is compared with the module.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slide_deploy.models.slide_attention import AttentionConfig, FusedSlideAttention

__all__ = [
    "AttentionParameters",
    "Hypothesis",
    "attention_parameters_of",
    "hypotheses",
    "is_one_hot",
]

# The paper has one pair; DAT's unshared kernels are two pairs of three convolutions.
MOST_SHIFTS = 4

_Pair = tuple[str, str]


@dataclass(frozen=True)
class AttentionParameters:
    """Parameters of a module that may be a Slide Attention, with the shifts by name.

    `fixed` are the depthwise convolutions with one-hot kernels, `learned` the others; `scales` are
    the numeric attributes of the module, one of which may be the factor on q.
    """

    projections: tuple[nn.Linear | nn.Conv2d, nn.Linear | nn.Conv2d]
    fixed: dict[str, nn.Conv2d]
    learned: dict[str, nn.Conv2d]
    table: Tensor | None
    scales: tuple[float, ...]


@dataclass(frozen=True)
class Hypothesis:
    """A fused attention on (B, H, W, C) in the module's precision, and its merged pairs."""

    attention: FusedSlideAttention
    pairs: tuple[str, ...]


def is_one_hot(weight: Tensor) -> bool:
    """Whether each kernel is zero except for one 1, as that of a shift."""
    flat = weight.detach().flatten(1)
    return bool(((flat == 1).sum(1) == 1).all() and (flat != 0).sum() == len(flat))


def attention_parameters_of(module: nn.Module) -> AttentionParameters | None:
    """The module's parameters, if they are exactly those of a Slide Attention."""
    projections: list[nn.Linear | nn.Conv2d] = []
    shifts: dict[str, nn.Conv2d] = {}
    tables: list[Tensor] = []
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear) or _is_pointwise(layer):
            projections.append(layer)
        elif _is_shift(layer):
            shifts[name] = layer
        else:
            tables += layer.parameters(recurse=False)
    fixed = {name: layer for name, layer in shifts.items() if is_one_hot(layer.weight)}
    learned = {name: layer for name, layer in shifts.items() if name not in fixed}
    shapes = {layer.weight.shape for layer in shifts.values()}
    if len(projections) != 2 or not fixed or not learned or len(tables) > 1:
        return None
    if len(shapes) > 1 or len(shifts) > MOST_SHIFTS:
        return None
    kept = (value for layer in module.modules() for value in vars(layer).values())
    scales = tuple(dict.fromkeys(value for value in kept if isinstance(value, float) and value))
    first, second = projections
    return AttentionParameters(
        (first, second), fixed, learned, tables[0] if tables else None, scales
    )


def hypotheses(parameters: AttentionParameters) -> Iterator[Hypothesis]:
    """All attentions that the parameters may form, the most common ones first."""
    channels, side = _sizes(parameters)
    for qkv, proj in itertools.permutations(parameters.projections):
        (rows, dim), (out, inner) = qkv.weight.shape[:2], proj.weight.shape[:2]
        if out != dim or rows not in (inner, 3 * inner) or inner % channels or dim % inner:
            continue
        heads = inner // channels
        if parameters.table is not None and parameters.table.numel() != heads * side**2:
            continue
        usual = (channels**-0.5, (dim // heads) ** -0.5, 1.0)
        scales = dict.fromkeys((*parameters.scales, *usual))
        orders = (True, False) if rows != inner and heads > 1 else (True,)
        for (keys, values), head_first, scale in itertools.product(
            _pairs(parameters), orders, scales
        ):
            config = AttentionConfig(
                dim=dim,
                heads=heads,
                kernel_size=side,
                qkv_bias=qkv.bias is not None,
                qk_scale=scale,
                reduction=dim // inner,
                position_bias=parameters.table is not None,
                share_kernel=keys == values,
                share_qkv=rows == inner,
            )
            pairs = tuple(" + ".join(pair) for pair in dict.fromkeys((keys, values)))
            state = _state(parameters, config, qkv, proj, (keys, values), head_first=head_first)
            if state is not None:
                yield Hypothesis(_built(config, state), pairs)


def _is_pointwise(layer: nn.Module) -> bool:
    plain = {"kernel_size": (1, 1), "stride": (1, 1), "padding": (0, 0), "groups": 1}
    return type(layer) is nn.Conv2d and all(getattr(layer, key) == v for key, v in plain.items())


def _is_shift(layer: nn.Module) -> bool:
    """Whether it is a depthwise convolution with an output per position of its odd kernel."""
    if type(layer) is not nn.Conv2d or layer.groups != layer.in_channels:
        return False
    height, width = layer.kernel_size
    return (
        height == width > 1
        and height % 2 == 1
        and layer.weight.shape[0] == (layer.in_channels * height * width)
    )


def _sizes(parameters: AttentionParameters) -> tuple[int, int]:
    """The channels of a head, and the size of the window."""
    layer = next(iter(parameters.fixed.values()))
    return layer.in_channels, layer.kernel_size[0]


def _pairs(parameters: AttentionParameters) -> Iterator[tuple[_Pair, _Pair]]:
    """All assignments of pairs to keys and values that use every convolution."""
    pairs = list(itertools.product(parameters.fixed, parameters.learned))
    everything = {*parameters.fixed, *parameters.learned}
    for keys, values in itertools.product(pairs, repeat=2):
        if {*keys, *values} == everything:
            yield keys, values


def _state(
    parameters: AttentionParameters,
    config: AttentionConfig,
    qkv: nn.Linear | nn.Conv2d,
    proj: nn.Linear | nn.Conv2d,
    pairs: tuple[_Pair, _Pair],
    *,
    head_first: bool,
) -> dict[str, Tensor] | None:
    """Weights under the names of this package; None if taps have no common order."""
    orders = [_taps(parameters.fixed[fixed].weight) for fixed, _ in pairs]
    if any(order is None or order != orders[0] for order in orders):
        return None
    order = torch.tensor(orders[0]).argsort()
    state = {
        "qkv.weight": _rows(qkv.weight.flatten(1), config, head_first=head_first),
        "proj.weight": proj.weight.flatten(1),
        "proj.bias": _bias(proj),
    }
    if qkv.bias is not None:
        state["qkv.bias"] = _rows(qkv.bias, config, head_first=head_first)
    if parameters.table is not None:
        shape = [size for size in parameters.table.shape if size != 1]
        turned = shape == [config.taps, config.heads]
        table = parameters.table.reshape(shape).T if turned else parameters.table
        table = table.reshape(config.heads, config.taps)[:, order]
        state["relative_position_bias_table"] = table.reshape(1, config.heads, 1, -1, 1, 1)
    for name, (fixed, learned) in zip(("shift", "shift_v"), pairs, strict=True):
        if name == "shift" or not config.share_kernel:
            first, second = parameters.fixed[fixed], parameters.learned[learned]
            state[f"{name}.weight"] = _ordered(first.weight + second.weight, order)
            state[f"{name}.bias"] = _ordered(_bias(first) + _bias(second), order)
    return {key: value.detach() for key, value in state.items()}


def _taps(one_hot: Tensor) -> list[int] | None:
    """The position that each tap copies, if they are distinct and the same for every channel."""
    taps = one_hot.shape[-1] ** 2
    places = one_hot.flatten(1).argmax(1).reshape(-1, taps).tolist()
    same = all(row == places[0] for row in places)
    return places[0] if same and sorted(places[0]) == list(range(taps)) else None


def _ordered(values: Tensor, order: Tensor) -> Tensor:
    """Outputs `c·k² + j` with the taps j of each channel in another order."""
    by_channel = values.reshape(-1, len(order), *values.shape[1:])
    return by_channel[:, order].flatten(0, 1)


def _rows(values: Tensor, config: AttentionConfig, *, head_first: bool) -> Tensor:
    """Outputs of the projection as (h, 3, d); some implementations have (3, h, d)."""
    if head_first:
        return values
    qkv_first = values.reshape(3, config.heads, config.head_dim, *values.shape[1:])
    return qkv_first.transpose(0, 1).flatten(0, 2)


def _bias(layer: nn.Linear | nn.Conv2d) -> Tensor:
    weight = layer.weight
    return weight.new_zeros(weight.shape[0]) if layer.bias is None else layer.bias


def _built(config: AttentionConfig, state: dict[str, Tensor]) -> FusedSlideAttention:
    with torch.device("meta"):
        attention = FusedSlideAttention(config)
    attention.load_state_dict(state, assign=True)
    return attention.eval().requires_grad_(False)
