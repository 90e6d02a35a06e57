"""Reads TOSA programs, and runs them on Arm's reference model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from slide_deploy.errors import ArtifactError

__all__ = ["input_count", "run_tosa", "tosa_constants", "tosa_operators"]


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
    from tosa.DType import DType

    kinds: dict[int, Any] = {DType.INT8: np.int8, DType.INT32: np.int32}
    for block in _blocks(program):
        for tensor in (block.Tensors(number) for number in range(block.TensorsLength())):
            if tensor.DataLength() and tensor.Type() in kinds:
                count = int(np.prod(tensor.ShapeAsNumpy())) if tensor.ShapeLength() else 1
                yield tensor.DataAsNumpy().view(kinds[tensor.Type()])[:count]


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
