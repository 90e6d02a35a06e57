"""Ways to round a model as an honest runtime may: at random, in its weights, in its operators."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = [
    "APPROXIMATED_FUNCTIONS",
    "OPERATOR_STEP",
    "OperatorErrors",
    "RandomRounding",
    "with_rounded_weights",
]

UNIT_ROUNDOFF = 2.0**-24  # of float32
TABLE = 1 << 20

# Of the operators below, the absolute error whose effect is measured. The effect is proportional
# to it, and far above the rounding noise.
OPERATOR_STEP = 1e-4

# Functions that runtimes approximate; and operators made of them, with what an absolute error of
# the function does to their result at x.
APPROXIMATED_FUNCTIONS = ("erf", "sigmoid", "softplus", "tanh")
APPROXIMATED: Mapping[str, tuple[str, Callable[[Tensor], Tensor | float]]] = {
    "erf": ("erf", lambda x: 1.0),
    "gelu": ("erf", lambda x: 0.5 * x),
    "gelu tanh": ("tanh", lambda x: 0.5 * x),
    "sigmoid": ("sigmoid", lambda x: 1.0),
    "silu": ("sigmoid", lambda x: x),
    "softplus": ("softplus", lambda x: 1.0),
    "tanh": ("tanh", lambda x: 1.0),
}

# Functions whose results are values of their arguments: nothing is rounded.
MOVES = (
    "__getitem__ cat clone concat contiguous flatten float gather index_select pad repeat reshape"
)
EXACT = frozenset(
    (*MOVES.split(), "roll", "stack", "to", "unfold", "where", "relu", "max_pool2d", "dropout")
)

# These are function modes because such a mode acts on one thread alone. A dispatch mode changes
# state that converters in other threads read.


class RandomRounding(TorchFunctionMode):
    """Monte Carlo arithmetic (Parker 1997): each float32 result is multiplied by 1 + u·ξ, with
    u = 2⁻²⁴ and ξ uniform in ±1, as if it had been rounded once more in a random direction."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        # Drawing anew for each of a model's million results would take longer than the model.
        self.factors = 1 + UNIT_ROUNDOFF * (2 * torch.rand(2 * TABLE, generator=generator) - 1)
        self.offset = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if _name(func) in EXACT:
            return result
        if isinstance(result, Tensor):
            return self._rounded(result, args)
        if type(result) in (tuple, list):
            return type(result)(
                self._rounded(one, args) if isinstance(one, Tensor) else one for one in result
            )
        return result

    def _rounded(self, value: Tensor, args: Any) -> Tensor:
        if value.dtype is not torch.float32 or _shares_memory(value, args):
            return value
        self.offset = (self.offset + 7919) % TABLE
        factors = self.factors[self.offset :]
        if value.numel() > TABLE:
            factors = factors.repeat(-(-value.numel() // TABLE))
        return value * factors[: value.numel()].view(value.shape)


class OperatorErrors(TorchFunctionMode):
    """Operators made of `function` compute it with an absolute error of OPERATOR_STEP at most, as
    smooth over its argument as a runtime's polynomial. `met` tells whether any of them ran."""

    def __init__(self, function: str) -> None:
        super().__init__()
        self.function = function
        self.met = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        variant = (kwargs or {}).get("approximate", "none")  # of GELU
        name = _name(func) if variant == "none" else f"{_name(func)} {variant}"
        function, effect = APPROXIMATED.get(name, ("", lambda x: 0.0))
        if function != self.function:
            return result
        self.met = True
        return result + OPERATOR_STEP * effect(args[0]) * torch.cos(7 * args[0])


def with_rounded_weights(module: nn.Module, seed: int) -> nn.Module:
    """A float64 copy whose weights are each off by up to one float32 rounding, at random: what
    constants suffer that a converter has folded, in the same way for each input."""
    generator = torch.Generator().manual_seed(seed)
    exact = copy.deepcopy(module).double()
    with torch.no_grad():
        for weight in exact.parameters():
            drawn = torch.rand(weight.shape, generator=generator, dtype=torch.float64)
            weight.mul_(1 + UNIT_ROUNDOFF * (2 * drawn - 1))
    return exact


def _name(func: Any) -> str:
    return str(getattr(func, "__name__", ""))


def _shares_memory(value: Tensor, args: Any) -> bool:
    """Whether a result is a view of an argument, or the argument itself."""
    own = value.untyped_storage().data_ptr()
    return any(isinstance(a, Tensor) and a.untyped_storage().data_ptr() == own for a in args)
