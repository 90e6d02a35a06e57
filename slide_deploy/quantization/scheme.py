"""The interface of a precision scheme."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slide_deploy.parity.gates import EACH_COMPARISON, Gate, GateKind
from slide_deploy.types import Precision

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Scheme", "same_width"]


def same_width(kind: str, other: str) -> bool:
    """Whether two number types differ in their sign at most, as int8 and uint8 do."""
    return kind.removeprefix("u") == other.removeprefix("u")


@dataclass(frozen=True)
class Scheme:
    """One precision; a file in `quantization/` defines it as `SCHEME`.

    `name` stands in manifests and reports, `short_name` and `aliases` are accepted beside it.
    `weights` and `activations` are number types; `epsilon` is the distance from 1 to the next
    number of the type that outputs are rounded to. `render` gives a copy of a float32 module that
    rounds as the scheme does, which is the noise that artifacts are judged by; None for float32
    itself. `rounded` gives a float64 copy with the weights that the scheme stores: what an artifact
    is meant to compute; without it that is the float64 model as it is. Artifacts of a `quantized`
    scheme are made from the float32 artifact: their gates judge the cost of the precision on the
    calibration set. Raises ValueError without a gate that judges each output on each probe.
    """

    name: str
    short_name: str
    aliases: tuple[str, ...]
    weights: str
    activations: str
    needs_calibration: bool
    render: Callable[[nn.Module], nn.Module] | None
    gates: tuple[Gate, ...]
    rounded: Callable[[nn.Module], nn.Module] | None = None
    quantized: bool = False
    epsilon: float = 2.0**-23

    @property
    def program(self) -> str:
        """The precision of the program that rounding noise judges: this one, or that of the float
        artifact that a quantized one is made from."""
        return Precision.FLOAT32 if self.quantized else self.name

    def __post_init__(self) -> None:
        judging = (*EACH_COMPARISON, GateKind.RELATIVE_ERROR)
        if not any(gate.kind in judging for gate in self.gates):
            raise ValueError(f"scheme {self.name} has no gate that judges each output and probe")
