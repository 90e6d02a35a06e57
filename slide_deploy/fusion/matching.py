"""Finds Slide Attention modules in any model by their outputs, independent of names.

A module with the parameters of the attention is compared with every attention that they may form.
If one gives the same outputs, it replaces the module and is lowered like those of this package.
Otherwise the module is not changed, and the reason is reported.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from slide_deploy.fusion.attention_parameters import (
    AttentionParameters,
    Hypothesis,
    attention_parameters_of,
    hypotheses,
)
from slide_deploy.fusion.equivalence import difference
from slide_deploy.fusion.pairs import Match
from slide_deploy.models.equivalence import RELATIVE_TOLERANCE, noise, relative_error
from slide_deploy.models.slide_attention import FusedSlideAttention, LocalAttention

__all__ = ["match_attentions"]

SUSPECT = "it has the parameters of Slide Attention"


class ChannelsFirst(nn.Module):
    """Runs an attention on (B, H, W, C) on maps (B, C, H, W)."""

    def __init__(self, attention: FusedSlideAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.attention(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return result


@dataclass(frozen=True)
class _Call:
    """The arguments and the result of one call in a forward pass."""

    arguments: tuple[Any, ...]
    named: dict[str, Any]
    result: Any


def match_attentions(
    module: nn.Module, example: tuple[Tensor, ...]
) -> tuple[nn.Module, tuple[Match, ...]]:
    """A copy of `module` in which each Slide Attention is fused, and the matches.

    Each must agree within 1e-12 in float64 on noise and on its inputs when the module runs on
    `example`, and so must the whole module. Modules of this package are not changed; see `fuse`.
    """
    exact = copy.deepcopy(module).double()
    candidates = dict(_candidates(exact, ""))
    if not candidates:
        return module, ()
    calls = _calls(exact, candidates, example)
    found: dict[str, Match] = {}
    replacements: dict[str, nn.Module] = {}
    for name, parameters in candidates.items():
        if any(_is_within(name, other) for other in replacements):
            continue
        outcome = _matched(exact.get_submodule(name), parameters, calls[name])
        if isinstance(outcome, str):
            found[name] = Match(name, "left", outcome)
        else:
            replacements[name], why = outcome
            found[name] = Match(name, "matched", why)
    if replacements and (problem := difference(exact, _with(exact, replacements), example)):
        found |= {name: replace(found[name], action="left", why=problem) for name in replacements}
        replacements = {}
    dtype = next(module.parameters()).dtype
    merged = _with(module, {name: own.to(dtype) for name, own in replacements.items()})
    return merged, tuple(entry for entry in found.values() if not _is_around(entry, found))


def _candidates(module: nn.Module, name: str) -> Iterator[tuple[str, AttentionParameters]]:
    """Modules with the parameters of Slide Attention, by name, outer before inner ones."""
    if isinstance(module, LocalAttention):
        return
    ours = any(isinstance(own, LocalAttention) for own in module.modules())
    if not ours and (parameters := attention_parameters_of(module)) is not None:
        yield name, parameters
    for own, child in module.named_children():
        yield from _candidates(child, f"{name}.{own}" if name else own)


def _is_within(name: str, other: str) -> bool:
    return name != other and (not other or name.startswith(f"{other}."))


def _is_around(entry: Match, found: dict[str, Match]) -> bool:
    """Whether an unmatched module only contains modules that are reported anyway."""
    return entry.action == "left" and any(_is_within(name, entry.name) for name in found)


def _calls(
    module: nn.Module, names: dict[str, AttentionParameters], example: tuple[Tensor, ...]
) -> dict[str, list[_Call]]:
    found: dict[str, list[_Call]] = {name: [] for name in names}

    def record(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, arguments: Any, named: dict[str, Any], result: Any) -> None:
            kept = tuple(v.clone() if isinstance(v, Tensor) else v for v in arguments)
            found[name].append(_Call(kept, named, result))

        return hook

    hooks = [
        module.get_submodule(name).register_forward_hook(record(name), with_kwargs=True)
        for name in names
    ]
    try:
        with torch.no_grad():
            module(*(x.double() if x.is_floating_point() else x for x in example))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _matched(
    module: nn.Module, parameters: AttentionParameters, calls: list[_Call]
) -> tuple[nn.Module, str] | str:
    """An equivalent attention and a description of it, or None and the reason."""
    if not calls:
        return f"{SUSPECT}, but is not called as a module"
    if not all(map(_maps_one_tensor, calls)):
        return f"{SUSPECT}, but does not map one tensor to one of its size"
    seen = [call.arguments[0] for call in calls]
    for first in (True, False):
        probes = list(_probes(module, parameters, seen, channels_first=first))
        for hypothesis in hypotheses(parameters):
            replacement = _as_module(hypothesis, channels_first=first)
            if all(_agree(replacement, x, expected) for x, expected in probes):
                merged = " and ".join(hypothesis.pairs)
                order = "channels first" if first else "channels last"
                return replacement, f"{merged} merged, {order}, equal within 1e-12 in float64"
    return f"{SUSPECT}, but computes something else"


def _maps_one_tensor(call: _Call) -> bool:
    if len(call.arguments) != 1 or call.named:
        return False
    (x,), y = call.arguments, call.result
    return all(isinstance(v, Tensor) and v.ndim == 4 for v in (x, y)) and x.shape == y.shape


def _as_module(hypothesis: Hypothesis, *, channels_first: bool) -> nn.Module:
    return ChannelsFirst(hypothesis.attention).eval() if channels_first else hypothesis.attention


def _probes(
    module: nn.Module, parameters: AttentionParameters, seen: list[Tensor], *, channels_first: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and outputs of the module: noise on a small map, if possible, noise in the shapes of
    its calls, and the inputs of its calls."""
    # Larger than the kernel on both axes, and not square: borders, corners and the middle.
    side = 2 * next(iter(parameters.fixed.values())).kernel_size[0]
    width = seen[0].shape[1 if channels_first else -1]
    with torch.no_grad():
        small = (2, width, side, side + 1) if channels_first else (2, side, side + 1, width)
        x = noise(small)
        with contextlib.suppress(Exception):  # its size or batch may be fixed
            yield x, module(x)
        for shape in dict.fromkeys(tuple(x.shape) for x in seen):
            x = 3 * noise(shape)
            yield x, module(x)
        for x in seen:
            yield x, module(x)


def _agree(replacement: nn.Module, x: Tensor, expected: Tensor) -> bool:
    attention = replacement.attention if isinstance(replacement, ChannelsFirst) else replacement
    assert isinstance(attention, FusedSlideAttention)
    if x.shape[1 if isinstance(replacement, ChannelsFirst) else -1] != attention.config.dim:
        return False
    with torch.no_grad():
        found = replacement(x)
    return relative_error(expected, found) <= RELATIVE_TOLERANCE


def _with(module: nn.Module, replacements: dict[str, nn.Module]) -> nn.Module:
    """A copy in which the named modules are replaced, also where they are shared."""
    if "" in replacements:
        return replacements[""]
    copied = copy.deepcopy(module)
    chosen = {copied.get_submodule(name): own for name, own in replacements.items()}
    for name, child in list(copied.named_modules(remove_duplicate=False)):
        if child in chosen:
            copied.set_submodule(name, chosen[child])
    return copied
