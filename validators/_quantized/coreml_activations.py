"""The quantized activations of a Core ML package, and the ranges of those of a float one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slide_deploy.errors import ArtifactError
from slide_deploy.protocols import Arrays, QuantizedTensor, Ranges

if TYPE_CHECKING:
    from slide_deploy.validators import _mil

__all__ = [
    "activation_tensors",
    "float_operations",
    "has_activations",
    "measure_ranges",
    "remove_quantization",
]

QUANTIZE, DEQUANTIZE = "quantize", "dequantize"

# Operations that compute with integers, where they read what is dequantized.
PRODUCTS = ("conv", "linear", "matmul")

# coremltools lets it move integers, without the operations that would surround it.
MOVES_INTEGERS = "reshape"

# Operations that only move values.
MOVING = (
    *("concat", "expand_dims", "identity", "pad", "reshape", "slice_by_index", "slice_by_size"),
    *("split", "squeeze", "stack", "transpose"),
)


def measure_ranges(path: Path, runs: Iterable[Arrays]) -> Ranges:
    """See `Runtime.ranges`."""
    from slide_deploy.validators import _mil

    return _ranges(_mil.read_package(path), runs)


def _ranges(program: _mil.Program, runs: Iterable[Arrays]) -> dict[str, tuple[float, float]]:
    """The smallest and the largest value of each floating-point tensor, over all runs."""
    from slide_deploy.validators import _mil

    found: dict[str, tuple[float, float]] = {}

    def observe(name: str, value: np.ndarray) -> None:
        if value.dtype.kind == "f":
            low, high = found.get(name, (np.inf, -np.inf))
            # These keep NaN, which Python's own min and max may lose.
            ends = np.minimum(low, value.min()), np.maximum(high, value.max())
            found[name] = float(ends[0]), float(ends[1])

    for feeds in runs:
        given = _mil.pictures(program, feeds)
        for name, value in given.items():
            observe(name, value)
        _mil.evaluate(program, given, observe=observe)
    return found


def has_activations(program: _mil.Program) -> bool:
    """Whether operations quantize what a program computes."""
    return any(op.type == QUANTIZE for op in program.operations)


def float_operations(program: _mil.Program) -> tuple[str, ...]:
    """The operations of a program with quantized activations that compute in floating point."""
    exact = {value.name for op in program.operations if _is_exact(op) for value in op.outputs}

    def is_exact(binding: object) -> bool:
        return not isinstance(binding, str) or binding in exact

    return tuple(
        f"mil::{op.type} {op.name}"
        for op in program.operations
        if op.type not in (QUANTIZE, "cast", *MOVING) and not _is_exact(op)
        if op.type not in PRODUCTS
        or not all(is_exact(given) for bindings in op.inputs.values() for given in bindings)
    )


def _is_exact(op: _mil.Operation) -> bool:
    """Whether the values of an operation stand for integers or are constants."""
    return bool(op.type == DEQUANTIZE or op.is_constant)


def activation_tensors(
    artifact: _mil.Program, origin: _mil.Program, runs: Iterable[Arrays]
) -> Iterator[QuantizedTensor]:
    """Each quantized activation, with its range in the float program `origin` on these runs.

    Raises ArtifactError where `artifact` quantizes what `origin` does not have, or dequantizes
    otherwise than it quantizes.
    """
    pairs = _pairs(artifact)
    if not pairs:
        return
    observed = _ranges(origin, runs)
    for op, parameters in pairs:
        (source,) = op.inputs["input"]
        if source not in observed:
            raise ArtifactError(
                f"the float package has no value {source}",
                "verify it with the options that it was exported with",
            )
        limits = np.iinfo(parameters["kind"].item())
        yield QuantizedTensor(
            name=str(source),
            kind=parameters["kind"].item(),
            low=int(limits.min),
            high=int(limits.max),
            scale=parameters["scale"],
            zero_point=parameters["zero_point"],
            observed=observed[source],
        )


def _pairs(program: _mil.Program) -> list[tuple[_mil.Operation, Mapping[str, np.ndarray]]]:
    """The operations that quantize, each with its parameters; those that dequantize are checked."""
    constants = {
        op.name: op.attributes["val"].data for op in program.operations if op.type == "const"
    }
    found: list[tuple[_mil.Operation, Mapping[str, np.ndarray]]] = []
    integers: dict[str, Mapping[str, np.ndarray]] = {}
    for op in program.operations:
        if op.type == QUANTIZE:
            parameters = _parameters(op, constants)
            integers[op.name] = parameters
            found.append((op, parameters))
        elif op.type == MOVES_INTEGERS and op.inputs["x"][0] in integers:
            integers[op.name] = integers[str(op.inputs["x"][0])]
        elif op.type == DEQUANTIZE:
            _check_pair(op, _parameters(op, constants), integers.get(str(op.inputs["input"][0])))
    return found


def _parameters(op: _mil.Operation, constants: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    given = {
        key: np.asarray(constants[binding] if isinstance(binding, str) else binding.data)
        for key, (binding,) in op.inputs.items()
        if key != "input"
    }
    given |= {key: np.asarray(value.data) for key, value in op.attributes.items()}
    zero = np.zeros(given["scale"].shape, np.int8)
    return {
        "scale": given["scale"],
        "zero_point": given.get("zero_point", zero),
        "axis": given.get("axis", np.array(-1)),
        "kind": given.get("output_dtype", np.array("int8")),
    }


def _check_pair(
    op: _mil.Operation,
    own: Mapping[str, np.ndarray],
    quantized: Mapping[str, np.ndarray] | None,
) -> None:
    """Raise ArtifactError unless `op` dequantizes by the parameters that were quantized with."""
    if quantized is None:
        raise ArtifactError(f"{op.name} is dequantized, but was not quantized", "export it again")
    if not all(np.array_equal(own[k], quantized[k]) for k in ("scale", "zero_point", "axis")):
        raise ArtifactError(
            f"{op.name} is dequantized with another scale or zero point than it was quantized with",
            "export it again",
        )


def remove_quantization(block: Any) -> None:
    """Let the operations of a block, a message, read what was quantized instead."""
    sources: dict[str, str] = {}
    types: dict[str, int] = {}
    kept = []
    for op in block.operations:
        for argument in op.inputs.values():
            for binding in argument.arguments:
                if binding.name in sources:
                    binding.name = sources[binding.name]
        if op.type in (QUANTIZE, DEQUANTIZE):
            sources[op.outputs[0].name] = op.inputs["input"].arguments[0].name
            continue
        if op.type == MOVES_INTEGERS:  # what moved integers moves their values
            moved = op.inputs["x"].arguments[0].name
            op.outputs[0].type.tensorType.dataType = types[moved]
        types |= {value.name: value.type.tensorType.dataType for value in op.outputs}
        kept.append(type(op).FromString(op.SerializeToString()))
    del block.operations[:]
    block.operations.extend(kept)
