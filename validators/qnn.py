"""Runs compiled programs for Qualcomm's Hexagon on its simulator."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from slide_deploy import hexagon
from slide_deploy.errors import ArtifactError
from slide_deploy.hexagon import FOLDER, MODEL
from slide_deploy.protocols import Arrays, QuantizedTensor, Runtime, Session
from slide_deploy.types import Fidelity, TensorSpec
from slide_deploy.validators._quantized import onnx as qdq

__all__ = ["RUNTIME"]

CONTEXT = "EPContext"

SIGNED = "int16"  # of the second factors of products, with ranges of their own

BLOCK = 16  # bytes that are compared as one, because some of varying bytes may be equal


def open_session(path: Path, *, threads: int = 1) -> Session:
    """Load the context binaries of a folder into the simulator; the float32 file of a folder
    without one, which a program without quantization is, into onnxruntime.

    Where there are several binaries, the outputs of each run are those that are the farthest from
    what onnxruntime computes on the CPU. Raises ArtifactError for a quantized file without binary,
    and for a binary of an unknown SoC.
    """
    import onnx

    proto = onnx.load(path / MODEL)
    onnx.checker.check_model(proto)
    types = qdq.quantized_types(proto)
    contexts = _contexts(path)
    if types and not contexts:
        raise ArtifactError(f"{path.name} has no context binary", "export it again")
    cpu = _on_cpu(path, threads)
    sessions = [_opened(context) for context in contexts]
    names = [value.name for value in cpu.get_outputs()]
    weights, activations = types or ("float32", "float32")

    def run(feeds: Arrays) -> dict[str, np.ndarray]:
        found = [session.run(names, dict(feeds)) for session in sessions or [cpu]]
        if len(found) > 1:
            wanted = cpu.run(names, dict(feeds))
            found.sort(key=lambda own: _distance(own, wanted), reverse=True)
        return dict(zip(names, found[0], strict=True))

    compiled = ", ".join(context.stem for context in contexts)
    return Session(
        inputs=tuple(map(_spec, cpu.get_inputs())),
        outputs=tuple(map(_spec, cpu.get_outputs())),
        run=run,
        operators=Counter(f"{n.domain or 'ai.onnx'}::{n.op_type}" for n in proto.graph.node),
        runtime=f"onnxruntime-qnn {hexagon.version()}, simulator of {compiled}"
        if contexts
        else "onnxruntime CPUExecutionProvider",
        precision=f"{weights} weights and {activations} activations" if types else "float32",
        values=lambda feeds: iter(()),
        violations=tuple(_violations(contexts)),
        weight_type=weights,
        compute_type=activations,
        device=f"simulated Hexagon of {compiled}" if contexts else "CPU",
        other_precision=qdq.float_operations(proto) if types else (),
        metadata={entry.key: entry.value for entry in proto.metadata_props},
    )


def _opened(context: Path) -> Any:
    try:
        return hexagon.open_context(context)
    except Exception as error:  # onnxruntime raises many kinds
        first = (str(error).strip().splitlines() or ["no message"])[0]
        raise ArtifactError(
            f"{context.name} cannot be loaded into the simulator: {first[:200]}", "export it again"
        ) from error


def open_second(path: Path) -> Session:
    """Load the quantized file into onnxruntime on the CPU."""
    cpu = _on_cpu(path, 1)
    names = [value.name for value in cpu.get_outputs()]
    return Session(
        inputs=(),
        outputs=(),
        run=lambda feeds: dict(zip(names, cpu.run(names, dict(feeds)), strict=True)),
        operators={},
        runtime="onnxruntime on the CPU",
        precision="as the file says",
        values=lambda feeds: iter(()),
    )


def take_apart(
    path: Path, program: Path, restored: Path, runs: Iterable[Arrays]
) -> Iterator[QuantizedTensor]:
    """See `Runtime.take_apart`. What a Softmax or Sigmoid gives has the range of the function, and
    what is a part of another value has that value's range, unless it is converted to SIGNED."""
    restored.mkdir()
    tensors = list(qdq.take_apart(path / MODEL, program / MODEL, restored / MODEL, runs))
    observed = {t.name: t.observed for t in tensors if t.observed}
    for name, source in _sources(program / MODEL).items():
        if source is None:
            observed[name] = (0.0, 1.0)
        elif source in observed:
            observed[name] = observed[source]
    for tensor in tensors:
        takes_range = tensor.observed and tensor.kind != SIGNED
        yield replace(tensor, observed=observed[tensor.name]) if takes_range else tensor


def compiled_problems(path: Path) -> Iterator[str]:
    """See `Runtime.compiled_problems`: each binary must be what the compiler makes again of the
    quantized file for the SoC in the binary's name.

    The compiler does not initialise a few bytes, which differ each time. Compiling twice finds
    them.
    """
    for context in _contexts(path):
        have = context.read_bytes()
        again = _compiled_again(path, context.name)
        if have == again:
            continue
        versions = [_version(content) for content in (have, again)]
        if versions[0] != versions[1]:
            yield (
                f"{context.name} was compiled by version {versions[0]} of Qualcomm's compiler, and "
                f"{versions[1]} is installed: export it again, or install that version"
            )
        elif _differs(have, again, _compiled_again(path, context.name)):
            yield f"{context.name} is not what {MODEL} compiles to for {context.stem}"


def _compiled_again(path: Path, name: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="slide-deploy-") as folder:
        again = Path(folder, name)
        hexagon.compile_for(again.stem, path / MODEL, again)
        return again.read_bytes()


def _differs(have: bytes, again: bytes, once_more: bytes) -> bool:
    """Whether a file differs from a second one where this is as a third one is."""
    if not len(have) == len(again) == len(once_more):
        return True
    first, second, third = (np.frombuffer(own, np.uint8) for own in (have, again, once_more))
    varying = set(np.flatnonzero(second != third) // BLOCK)
    near = {block + step for block in varying for step in (-1, 0, 1)}
    return bool(set(np.flatnonzero(first != second) // BLOCK) - near)


def _sources(program: Path) -> dict[str, str | None]:
    """For each value that is moved from another one, or a part of it, this one; None for values of
    an operator with the range 0 to 1."""
    import onnx

    found: dict[str, str | None] = {}
    for node in onnx.load(program).graph.node:
        if node.op_type in ("Softmax", "Sigmoid"):
            found |= dict.fromkeys(node.output)
        elif node.op_type in qdq.MOVING and node.op_type != "Concat":
            found |= dict.fromkeys(node.output, found.get(node.input[0], node.input[0]))
    return found


def _on_cpu(path: Path, threads: int) -> Any:
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path / MODEL, options, providers=["CPUExecutionProvider"])


def _contexts(path: Path) -> list[Path]:
    """The compiled files of a folder, each named after its SoC."""
    found = [own for own in sorted(path.glob("*.onnx")) if own.name != MODEL]
    for own in found:
        if own.stem not in hexagon.SOCS:
            raise ArtifactError(
                f"{own.name} is not named after a known SoC", f"known: {', '.join(hexagon.SOCS)}"
            )
    return found


def _violations(contexts: Iterable[Path]) -> Iterator[str]:
    import onnx

    for context in contexts:
        kinds = {node.op_type for node in onnx.load(context).graph.node}
        if kinds != {CONTEXT}:
            yield f"{context.name} has operators outside of the context binary"


def _version(context: bytes) -> str:
    """The version of the compiler, as a compiled file tells it."""
    import onnx

    nodes = onnx.load_from_string(context).graph.node
    told = [a.s.decode() for node in nodes for a in node.attribute if a.name == "ep_sdk_version"]
    return ", ".join(told) or "unknown"


def _distance(outputs: Iterable[np.ndarray], wanted: Iterable[np.ndarray]) -> float:
    pairs = zip(outputs, wanted, strict=True)
    return sum(float(np.square(a.astype(np.float64) - b).sum()) for a, b in pairs)


def _spec(value: Any) -> TensorSpec:
    element = value.type.removeprefix("tensor(").removesuffix(")")
    return TensorSpec(value.name, tuple(value.shape), "float32" if element == "float" else element)


RUNTIME = Runtime(
    target="qnn",
    recognises=lambda path: path.name.endswith(FOLDER),
    open=open_session,
    fidelity=lambda: Fidelity.SIMULATED,
    packages=hexagon.PACKAGES,
    extra="qnn",
    standard_domains=frozenset({"ai.onnx", "com.microsoft"}),
    second_opinion="onnxruntime on the CPU",
    open_second=open_second,
    take_apart=take_apart,
    compiled_problems=compiled_problems,
)
