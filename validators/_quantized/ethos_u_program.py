"""Whether the numbers of TOSA programs follow from the quantized graph: integers of weights,
multipliers, zero points and tables.

A TOSA program computes with integers, and changes their scale by multipliers of 31 bits. These
follow from the scales and zero points of the inputs and the output of each operator in the graph.
Where in a program a number stands is not compared: a wrong place shows in the outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from slide_deploy.ethos_u.files import GRAPH
from slide_deploy.ethos_u.graph import DEQUANTIZE, QUANTIZE, converts, numbers, packet_of
from slide_deploy.ethos_u.tosa import Rescale, tosa_constants, tosa_rescales, tosa_tables

if TYPE_CHECKING:
    from torch.fx import GraphModule

    Node = Any  # arguments of torch.fx.Node have a type too wide to be of use

__all__ = ["missing_integers", "other_numbers"]

# The relative error of a factor that is rounded to a multiplier of 31 bits.
ROUNDING = 2.0**-30

# Before a sum, the inputs are brought to one scale: twice the coarser one's, divided by two to the
# power of this.
BITS_OF_SUMS = 20

PRODUCTS = ("addmm", "bmm", "conv2d", "conv_transpose2d", "linear", "matmul", "mul")
SUMS = ("add", "sub")
EXTREMES = ("maximum", "minimum")

# They work in the scale of an input, or look up a table. An operator in none of these lists may
# have any factor, with its own zero points.
OTHERS = (
    *("abs", "amax", "avg_pool2d", "cat", "chunk", "clamp", "clone", "constant_pad_nd", "elu"),
    *("exp", "expand", "flatten", "full", "gelu", "hardsigmoid", "hardswish"),
    *("hardtanh", "max_pool2d", "mT", "neg", "pad", "permute", "pixel_shuffle", "pow"),
    *("reciprocal", "relu", "reshape", "rsqrt", "sigmoid", "silu", "slice", "slice_copy", "split"),
    *("squeeze", "sum", "tanh", "transpose", "unsqueeze", "_unsafe_view", "view", "view_copy"),
)

# Factors, by the zero points that are subtracted before and added after, and by their bytes; None
# stands for any.
Factors = dict[tuple[int, int], dict[bytes, np.ndarray | None]]


def other_numbers(graph: GraphModule, programs: Sequence[bytes]) -> Iterator[str]:
    """The multipliers, zero points and tables of TOSA programs that do not follow from the graph:
    a sentence for each program and kind."""
    nodes = [n for n in graph.graph.nodes if n.op == "call_function" and not converts(n)]
    expected = _expected_factors(nodes)
    tables = {table.tobytes() for node in nodes for table in _expected_tables(node)}
    for number, program in enumerate(programs):
        wrong = [own.name for own in tosa_rescales(program) if not _follows(own, expected)]
        if wrong:
            yield (
                f"program-{number}.tosa has {len(wrong)} operators with a multiplier or zero point "
                f"that does not follow from {GRAPH}; the first is {wrong[0]}"
            )
        wrong = [name for name, own in tosa_tables(program) if own.tobytes() not in tables]
        if wrong:
            yield (
                f"program-{number}.tosa has {len(wrong)} tables that do not follow from {GRAPH}; "
                f"the first is that of {wrong[0]}"
            )


def missing_integers(graph: GraphModule, programs: Sequence[bytes]) -> Iterator[str]:
    """The weights of the graph that no TOSA program has, in any layout, whole or by groups."""
    have = {_key(own) for program in programs for own in tosa_constants(program)}
    readers = [n for n in graph.graph.nodes if str(n.target).startswith(DEQUANTIZE)]
    for source in dict.fromkeys(reader.args[0] for reader in readers):
        if source.op != "get_attr":
            continue
        integers = source.meta["value"].numpy()
        if _key(integers) in have:
            continue
        if not {_key(own) for own in np.split(integers, _groups(source))} <= have:
            yield f"no TOSA program has the integers of {source.name}"


def _groups(weights: Node) -> Any:
    """The groups of the convolution that reads these; TOSA has a convolution for each."""
    readers = (reader for own in weights.users for reader in own.users)
    found = (reader for reader in readers if str(reader.target).startswith("aten.conv2d"))
    return next((reader.args[6] for reader in found if len(reader.args) > 6), 1)


def _key(integers: np.ndarray) -> tuple[str, bytes]:
    return integers.dtype.name, np.sort(integers.ravel()).tobytes()


def _follows(rescale: Rescale, expected: Factors) -> bool:
    """Whether these factors are expected, as a whole or, of a convolution in groups, in part."""
    own, count = rescale.factors, rescale.factors.size
    return any(
        one is None
        or (
            one.size % count == 0
            and np.isclose(one.reshape(-1, count), own, rtol=ROUNDING, atol=0).all(1).any()
        )
        for one in expected.get((rescale.input_zero, rescale.output_zero), {}).values()
    )


def _expected_factors(nodes: Sequence[Node]) -> Factors:
    found: Factors = {}
    for node in nodes:
        for zeros, factors in _factors_of(node):
            key = b"" if factors is None else factors.tobytes()
            found.setdefault(zeros, {})[key] = factors
    return found


def _factors_of(node: Node) -> Iterator[tuple[tuple[int, int], np.ndarray | None]]:
    """The factors that bring inputs to the scale in which the operator works, and its result to the
    scale of its output."""
    name = packet_of(node)
    inputs = [_scale_and_zero(own) for own in _given(node) if converts(own)]
    works = _working_scales(name, [own for own, _ in inputs])
    for own, own_zero in inputs:
        yield (own_zero, 0), np.ones(1)
        if name in (*SUMS, *EXTREMES):
            yield (own_zero, 0), own / works[0]
    for scale, zero in map(_scale_and_zero, _quantizers(node)):
        yield (0, zero), np.ones(1)
        yield from (((0, zero), work / scale) for work in works)
        for own, own_zero in inputs:
            yield (own_zero, zero), own / scale
            if name not in (*PRODUCTS, *SUMS, *EXTREMES, *OTHERS):
                yield from ((zeros, None) for zeros in ((own_zero, 0), (0, zero), (0, 0)))


def _working_scales(name: str, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    if name in PRODUCTS and len(inputs) > 1:
        return [inputs[0] * inputs[1]]
    if name in SUMS and inputs:
        return [2 * np.max(inputs, axis=0) * 2.0**-BITS_OF_SUMS]
    if name in EXTREMES and inputs:
        return [np.min(inputs, axis=0)]
    return list(inputs)


def _expected_tables(node: Node) -> Iterator[np.ndarray]:
    """The outputs of a function of one input, for each integer of 8 bits."""
    import torch

    inputs = [own for own in _given(node) if converts(own)]
    if len(inputs) != 1:
        return
    scale, zero, low, high = inputs[0].args[1:5]
    values = (torch.arange(low, high + 1, dtype=torch.float32) - zero) * scale
    try:
        made = node.target(values, *node.args[1:], **node.kwargs)
    except (RuntimeError, IndexError):  # it needs an input of other dimensions
        return
    if not isinstance(made, torch.Tensor) or made.shape != values.shape:
        return
    for own in _quantizers(node):
        scale, zero, low, high = own.args[1:5]
        integers = torch.clamp(torch.round(made / scale) + zero, low, high)
        yield torch.nan_to_num(integers).numpy().astype(np.int8)


def _quantizers(node: Node) -> Iterator[Node]:
    """The nodes that quantize what an operator makes, also behind an activation in it."""
    for own in node.users:
        if str(own.target) == QUANTIZE:
            yield own
        elif own.op == "call_function" and not converts(own):
            yield from _quantizers(own)


def _given(node: Node) -> Iterator[Node]:
    for own in node.args:
        yield from (
            part
            for part in (own if isinstance(own, tuple | list) else (own,))
            if hasattr(part, "op")
        )


def _scale_and_zero(node: Node) -> tuple[np.ndarray, int]:
    """Of channels, all scales, and the zero point of the first."""
    scale, zero = map(numbers, node.args[1:3])
    return scale.astype(np.float64), int(zero[0])
