"""Finds the smallest piece of an ONNX file that computes something else than the clean file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slide_deploy.errors import UsageError
from slide_deploy.protocols import Arrays, Piece

__all__ = ["reduce"]

# The same operators on the same numbers give the same result; operators that another tool has
# rearranged differ by rounding. A share of the largest value.
ROUNDING = 1e-5


def reduce(path: Path, program: Path, piece: Path, runs: Sequence[Arrays]) -> Piece:
    """See `Runtime.reduce`. Values of one name are taken to be the same value in both files.

    Raises UsageError where no value has a common name, or no piece differs.
    """
    import onnx

    artifact, origin = onnx.load(path), onnx.load(program)
    values = [_values(origin, run) for run in runs]
    common = [n for node in artifact.graph.node for n in node.output if n in values[0]]
    if not common:
        raise UsageError(
            f"no tensor name in {path.name} occurs in a new export",
            "pass a file with unchanged tensor names, or find the block with verify --trace",
        )
    ends = {*common, *runs[0]}
    errors = {
        name: _error(_cut(artifact, name, ends, values[0]), values[0], name) for name in common
    }
    worst = max(errors, key=errors.__getitem__)
    if not errors[worst] > ROUNDING:
        raise UsageError(
            f"no piece of {path.name} differs from a new export by more than rounding",
            "verify tells whether the file fails at all",
        )
    found, clean = (_cut(one, worst, ends, values[0]) for one in (artifact, origin))
    onnx.save(found, piece)
    inputs = [value.name for value in found.graph.input]
    return Piece(
        operators=tuple(f"{node.op_type} {node.name}".strip() for node in found.graph.node),
        total=len(artifact.graph.node),
        differing=sum(error > ROUNDING for error in errors.values()),
        inputs=[{name: own[name] for name in inputs} for own in values],
        outputs=[{worst: own[worst]} for own in values],
        rounded=[{worst: _run(clean, own)} for own in values],
    )


def _values(proto: Any, feeds: Arrays) -> dict[str, np.ndarray]:
    """Every value of a file by its name, inputs included."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(proto)
    written = {name for node in proto.graph.node for name in node.output}
    known = {value.name for value in proto.graph.output}
    for value in inferred.graph.value_info:
        if value.name in written - known:
            inferred.graph.output.append(value)
    session = _session(inferred, optimised=False)
    names = [value.name for value in inferred.graph.output]
    return {**feeds, **dict(zip(names, session.run(names, dict(feeds)), strict=True))}


def _cut(proto: Any, end: str, ends: Iterable[str], values: Mapping[str, np.ndarray]) -> Any:
    """The operators between `end` and the values among `ends` before it, as a file of their own."""
    import onnx
    from onnx import helper

    writers = {name: node for node in proto.graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    starts: dict[str, None] = {}
    needed: dict[str, None] = {}
    kept: list[Any] = []

    def visit(name: str) -> None:
        if name in constants:
            needed[name] = None
        elif name in ends and name != end:
            starts[name] = None
        elif name and name in writers and writers[name] not in kept:
            for before in writers[name].input:
                visit(before)
            kept.append(writers[name])

    visit(end)
    inputs, outputs = (
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(values[name].dtype), values[name].shape
            )
            for name in names
        ]
        for names in (starts, (end,))
    )
    tensors = [constants[name] for name in needed]
    graph = helper.make_graph(kept, "piece", inputs, outputs, tensors)
    made: onnx.ModelProto = helper.make_model(
        graph, opset_imports=proto.opset_import, ir_version=proto.ir_version
    )
    return made


def _error(piece: Any, values: Mapping[str, np.ndarray], name: str) -> float:
    """The largest error on the clean file's values, as a share of the largest value."""
    meant = values[name]
    if meant.dtype.kind != "f" or not meant.size:
        return 0.0
    made = _run(piece, values, optimised=False)
    if made.shape != meant.shape or not np.isfinite(made).all():
        return np.inf
    return float(np.abs(made - meant).max() / max(np.abs(meant).max(), 1e-30))


def _run(piece: Any, values: Mapping[str, np.ndarray], *, optimised: bool = True) -> np.ndarray:
    feeds = {value.name: values[value.name] for value in piece.graph.input}
    return np.asarray(_session(piece, optimised=optimised).run(None, feeds)[0])


def _session(proto: Any, *, optimised: bool) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
