"""Reads TOSA programs, and runs them on Arm's reference model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from slide_deploy.errors import ArtifactError

__all__ = [
    "Rescale",
    "input_count",
    "run_tosa",
    "tosa_constants",
    "tosa_operators",
    "tosa_rescales",
    "tosa_tables",
]


@dataclass(frozen=True)
class Rescale:
    """An operator that changes the scale of integers: (x − input_zero) × factors + output_zero,
    with one factor or one per channel; `name` is that of its output."""

    name: str
    factors: np.ndarray
    input_zero: int
    output_zero: int


def run_tosa(program: bytes, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of a TOSA program; ArtifactError where the reference model refuses it."""
    import tosa_reference_model as model

    outputs, status = model.run(program, list(inputs))
    if status != model.GraphStatus.TOSA_VALID:
        raise ArtifactError(f"the TOSA reference model says {status}", "export it again")
    return list(outputs)


def input_count(program: bytes) -> int:
    """How many inputs a TOSA program takes."""
    return int(_blocks(program)[0].InputsLength())


def tosa_operators(program: bytes) -> list[str]:
    """The names of a TOSA program's operators; ArtifactError where it is no such program."""
    from tosa.Op import Op

    names = {value: name for name, value in vars(Op).items() if isinstance(value, int)}
    return [
        names.get(block.Operators(number).Op(), "unknown")
        for block in _blocks(program)
        for number in range(block.OperatorsLength())
    ]


def tosa_constants(program: bytes) -> Iterator[np.ndarray]:
    """The constants of a TOSA program in 8 and 32 bits, each in one dimension."""
    for block in _blocks(program):
        for tensor in (block.Tensors(number) for number in range(block.TensorsLength())):
            if tensor.DataLength() and tensor.Type() in _kinds():
                yield _integers(tensor)


def tosa_rescales(program: bytes) -> Iterator[Rescale]:
    """The operators of a TOSA program that change the scale of integers."""
    for name, (multipliers, shifts, *zeros) in _operands(program, "RESCALE"):
        factors = multipliers * 2.0 ** -shifts.astype(np.float64)
        yield Rescale(name, factors, *(int(zero[0]) for zero in zeros))


def tosa_tables(program: bytes) -> Iterator[tuple[str, np.ndarray]]:
    """The tables of functions in a TOSA program, each by the name of its operator's output."""
    for name, (table,) in _operands(program, "TABLE"):
        yield name, table


def _operands(program: bytes, kind: str) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Of each operator of a kind: the name of its output, and its constants."""
    from tosa.Op import Op

    for block in _blocks(program):
        tensors = {t.Name(): t for t in map(block.Tensors, range(block.TensorsLength()))}
        for operator in map(block.Operators, range(block.OperatorsLength())):
            if operator.Op() == getattr(Op, kind):
                names = [operator.Inputs(number) for number in range(1, operator.InputsLength())]
                constants = [_integers(tensors[name]) for name in names]
                yield operator.Outputs(0).decode(), constants


def _integers(tensor: Any) -> np.ndarray:
    count = int(np.prod(tensor.ShapeAsNumpy())) if tensor.ShapeLength() else 1
    integers: np.ndarray = tensor.DataAsNumpy().view(_kinds()[tensor.Type()])[:count]
    return integers


@cache
def _kinds() -> dict[int, Any]:
    from tosa.DType import DType

    return {DType.INT8: np.int8, DType.INT32: np.int32}


def _blocks(program: bytes) -> list[Any]:
    from tosa.TosaGraph import TosaGraph

    try:
        graph = TosaGraph.GetRootAs(program, 0)
        regions = [graph.Regions(number) for number in range(graph.RegionsLength())]
        return [region.Blocks(n) for region in regions for n in range(region.BlocksLength())]
    except Exception as error:  # flatbuffers and struct raise many kinds
        raise ArtifactError(
            f"a TOSA program cannot be read: {type(error).__name__}", "export it again"
        ) from error
