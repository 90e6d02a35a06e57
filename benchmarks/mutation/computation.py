"""Errors in the computation: the weights are not changed."""

from __future__ import annotations

import inspect
import random
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import nn

from benchmarks.mutation.mutation import Kind, Mutation
from benchmarks.mutation.operators import approximate_gelu, layer_norm_epsilon
from slide_deploy.models.slide_attention import LocalAttention
from slide_deploy.models.window_attention import WindowAttention

__all__ = ["COMPUTATION_KINDS"]

PAD_VALUE, PAD_SIDE, SOFTMAX = "padding value", "padding side", "softmax axis"
TWICE, NEVER = "scale applied twice", "scale not applied"
GELU, EPSILON, MASK = "GELU erf/tanh", "LayerNorm epsilon", "window mask dropped"


def _padding_value(module: nn.Module, rng: random.Random) -> Iterator[Mutation]:
    for name, conv in _padded_convolutions(module):
        margin = conv.kernel_size[0] // 2
        around = (margin, margin, margin, margin)
        yield _padded(PAD_VALUE, name, "edges repeated", partial(nn.ReplicationPad2d, around))
        yield _padded(PAD_VALUE, name, "ones", partial(nn.ConstantPad2d, around, 1.0))


def _padding_side(module: nn.Module, rng: random.Random) -> Iterator[Mutation]:
    for name, conv in _padded_convolutions(module):
        margin = conv.kernel_size[0] - 1
        after, before = (0, margin, 0, margin), (margin, 0, margin, 0)
        yield _padded(PAD_SIDE, name, "all after", partial(nn.ZeroPad2d, after))
        yield _padded(PAD_SIDE, name, "all before", partial(nn.ZeroPad2d, before))


def _padded_convolutions(module: nn.Module) -> Iterator[tuple[str, nn.Conv2d]]:
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d) and any(map(int, layer.padding)):
            yield name, layer


def _padded(kind: str, name: str, detail: str, pad: Callable[[], nn.Module]) -> Mutation:
    def apply(module: nn.Module) -> None:
        conv = module.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        conv.padding = (0, 0)
        parent, _, own = name.rpartition(".")
        setattr(module.get_submodule(parent), own, nn.Sequential(pad(), conv))

    return Mutation(kind, name, detail, apply)


def _softmax(module: nn.Module, rng: random.Random) -> Iterator[Mutation]:
    for name, attention in _attentions(module):
        if isinstance(attention, LocalAttention):
            for axis, meaning in ((2, "over pixels"), (0, "over heads")):
                new = f"softmax(dim={axis})"
                yield _rewritten(SOFTMAX, name, meaning, "softmax(dim=1)", new)
        else:
            yield _rewritten(SOFTMAX, name, "over queries", "softmax(dim=-1)", "softmax(dim=-2)")


def _twice(module: nn.Module, rng: random.Random) -> Iterator[Mutation]:
    for name, attention in _attentions(module):
        owner = "config" if isinstance(attention, LocalAttention) else "self"
        once = f"q * {owner}.scale"
        yield _rewritten(TWICE, name, "", once, f"{once} * {owner}.scale")


def _never(module: nn.Module, rng: random.Random) -> Iterator[Mutation]:
    for name, attention in _attentions(module):
        owner = "config" if isinstance(attention, LocalAttention) else "self"
        yield _rewritten(NEVER, name, "", f"q * {owner}.scale", "q * 1.0")


def _rewritten(kind: str, name: str, detail: str, old: str, new: str) -> Mutation:
    return Mutation(kind, name, detail or new, partial(_rewrite, name, old, new))


def _rewrite(name: str, old: str, new: str, module: nn.Module) -> None:
    """Replace the forward of one submodule by a copy with one expression changed in the source."""
    broken: Any = module.get_submodule(name)
    forward = type(broken).forward
    source = textwrap.dedent(inspect.getsource(forward))
    if source.count(old) != 1:
        raise LookupError(f"{old!r} occurs {source.count(old)} times in the forward of {name}")
    scope = dict(forward.__globals__)
    exec(compile(source.replace(old, new), f"<broken {name}>", "exec"), scope)
    cls = type(broken)
    broken.__class__ = type(f"Broken{cls.__name__}", (cls,), {"forward": scope["forward"]})


def _gelu(module: nn.Module, rng: random.Random) -> Iterator[Mutation]:
    names = [name for name, layer in module.named_modules() if isinstance(layer, nn.GELU)]
    for index, name in enumerate(names):  # modules are listed in execution order
        apply = partial(_set, name, "approximate", "tanh")
        yield Mutation(GELU, name, "tanh for erf", apply, approximate_gelu(index))


def _epsilon(module: nn.Module, rng: random.Random) -> Iterator[Mutation]:
    norms = [(n, layer) for n, layer in module.named_modules() if isinstance(layer, nn.LayerNorm)]
    for index, (name, layer) in enumerate(norms):
        for epsilon in (1e-6, 1e-12, 1e-3):
            if epsilon == layer.eps:
                continue
            detail = f"{epsilon:g} for {layer.eps:g}"
            apply = partial(_set, name, "eps", epsilon)
            yield Mutation(EPSILON, name, detail, apply, layer_norm_epsilon(index, epsilon))


def _set(name: str, attribute: str, value: Any, module: nn.Module) -> None:
    setattr(module.get_submodule(name), attribute, value)


def _mask(module: nn.Module, rng: random.Random) -> Iterator[Mutation]:
    for name, layer in module.named_modules():
        if getattr(layer, "attn_mask", None) is not None:
            yield Mutation(MASK, f"{name}.attn", "all windows open", partial(_open, name))


def _open(name: str, module: nn.Module) -> None:
    module.get_submodule(name).get_buffer("attn_mask").zero_()


def _attentions(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, layer in module.named_modules():
        if isinstance(layer, LocalAttention | WindowAttention):
            yield name, layer


COMPUTATION_KINDS = (
    Kind(PAD_VALUE, "a shift pads with values other than zero", _padding_value, False),
    Kind(PAD_SIDE, "a shift pads on one side only", _padding_side, False),
    Kind(SOFTMAX, "attention is normalised over the wrong axis", _softmax, False),
    Kind(TWICE, "q is scaled by scale²", _twice, False),
    Kind(NEVER, "q is not scaled", _never, False),
    Kind(GELU, "the tanh approximation of GELU is used", _gelu, False),
    Kind(EPSILON, "the epsilon of a LayerNorm is changed", _epsilon, False),
    Kind(MASK, "shifted windows attend across the border", _mask, False),
)
