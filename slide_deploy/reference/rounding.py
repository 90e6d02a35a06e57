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

# Operators that sum products, with the number of terms for their two operands. Kernels sum no more
# of them in a row before they add partial sums.
SUMMED_IN_A_ROW = 256
TERMS: Mapping[str, Callable[[Tensor, Tensor], int]] = {
    "linear": lambda values, weight: weight.shape[-1],
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), lambda values, weight: weight[0].numel()),
    **dict.fromkeys(("matmul", "__matmul__", "bmm"), lambda left, right: left.shape[-1]),
}

# These are function modes because such a mode acts on one thread alone. A dispatch mode changes
# state that converters in other threads read.


class RandomRounding(TorchFunctionMode):
    """Monte Carlo arithmetic (Parker 1997): each float32 result is multiplied by 1 + u·ξ, with
    u = 2⁻²⁴ and ξ uniform in ±1, as if it had been rounded once more in a random direction.

    A sum of K products has K − 1 partial sums, which a runtime may round one after the other. For
    terms of random signs their errors add up to u·√(K/2)·√Σ(aₖ·bₖ)² (after Higham, Accuracy and
    Stability of Numerical Algorithms, 2002, chapter 4), which is added to such results.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        # Drawing anew for each of a model's million results would take longer than the model.
        self.draws = 2 * torch.rand(2 * TABLE, generator=generator) - 1
        self.offset = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if _name(func) in EXACT:
            return result
        if isinstance(result, Tensor):
            return self._rounded(result, args, _rounding_of_sums(func, args, kwargs or {}))
        if type(result) in (tuple, list):
            return type(result)(
                self._rounded(one, args) if isinstance(one, Tensor) else one for one in result
            )
        return result

    def _rounded(self, value: Tensor, args: Any, sums: Tensor | None = None) -> Tensor:
        if value.dtype is not torch.float32 or _shares_memory(value, args):
            return value
        # The error is tiny, so that float32 is enough for it: the sum is rounded once.
        error = value * self._drawn(value)
        error *= UNIT_ROUNDOFF
        if sums is not None:
            error.addcmul_(sums, self._drawn(value))
        return value + error

    def _drawn(self, like: Tensor) -> Tensor:
        self.offset = (self.offset + 7919) % TABLE
        count = like.numel()
        draws = self.draws[self.offset : self.offset + min(count, TABLE)]
        if count > TABLE:
            draws = draws.repeat(-(-count // TABLE))[:count]
        return draws.view(like.shape)


def _rounding_of_sums(func: Any, args: Any, kwargs: Any) -> Tensor | None:
    """The error of the sums of products of an operator, up to a random factor; None of others."""
    terms = TERMS.get(_name(func))
    if terms is None or len(args) < 2 or args[0].dtype is not torch.float32:
        return None
    count = min(terms(*args[:2]), SUMMED_IN_A_ROW)
    options = {name: value for name, value in kwargs.items() if name != "bias"}
    without_bias = (None, *args[3:]) if len(args) > 3 else ()
    power = func(args[0] * args[0], args[1] * args[1], *without_bias, **options)
    step = UNIT_ROUNDOFF * (count / 2) ** 0.5
    error: Tensor = torch.as_tensor(power).clamp(min=0).sqrt().mul_(step)
    return error


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
