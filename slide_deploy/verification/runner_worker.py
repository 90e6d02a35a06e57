"""The process that runs an artifact. It cannot import the models and sees no GPU.

Run as `python -m slide_deploy.verification.runner_worker` with the arguments TARGET ARTIFACT TASK
GIVEN.npz MADE.safetensors; it prints one JSON object. The tasks `run` and `run-second` write the
outputs of each probe to MADE as "probe/output"; `trace` compares the artifact's intermediate values
with the blocks of a model; `take-apart` writes the quantized tensors of an artifact, `widen` those
of a float16 one, `reduce` a piece of it; `compiled-problems` compiles parts of it again.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from slide_deploy import registry
from slide_deploy.errors import ArtifactError, OutputError, SlideDeployError
from slide_deploy.parity.block_trace import BlockReference, trace_blocks
from slide_deploy.protocols import Runtime, Session

__all__ = ["SEPARATOR", "main", "no_room"]

SEPARATOR = "/"
# The packages that run an artifact; the other packages created it.
_ROOMS = {
    *("errors", "types", "utils", "protocols", "registry", "parity"),
    *("validators", "verification", "hexagon", "ethos_u"),
}


class _NoModels(MetaPathFinder):
    """Refuses to import the code that created the artifact."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None) -> None:
        package, _, inner = name.partition(".")
        if package == "slide_deploy" and inner and inner.partition(".")[0] not in _ROOMS:
            raise ImportError(f"{name} must not be imported by the runner worker")


def main(arguments: Sequence[str]) -> int:
    target, artifact, task, given, made = arguments
    sys.meta_path.insert(0, _NoModels())
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
    try:
        about = _TASKS[task](registry.runtime(target), Path(artifact), Path(given), Path(made))
    except SlideDeployError as error:
        about = {
            "problem": error.message,
            "hint": error.hint,
            "details": "".join(traceback.format_exception(error)),
            "kind": type(error).__name__,
        }
    json.dump(about, sys.stdout)
    return 0


def _run(runtime: Runtime, artifact: Path, given: Path, made: Path) -> dict[str, Any]:
    return _run_with(runtime, runtime.open, artifact, given, made)


def _run_second(runtime: Runtime, artifact: Path, given: Path, made: Path) -> dict[str, Any]:
    assert runtime.open_second is not None
    return _run_with(runtime, runtime.open_second, artifact, given, made)


def _run_with(
    runtime: Runtime,
    opener: Callable[[Path], Session],
    artifact: Path,
    given: Path,
    made: Path,
) -> dict[str, Any]:
    with _translated(f"{artifact.name} cannot be loaded"):
        session = opener(artifact)
    results: dict[str, np.ndarray] = {}
    for probe, inputs in _nested(given).items():
        with _translated(f"{artifact.name} cannot be run on probe {probe!r}"):
            produced = session.run(inputs)
        results |= {f"{probe}{SEPARATOR}{name}": value for name, value in produced.items()}
    with _translated(f"{artifact.name} has an output that is not an array of numbers"):
        # safetensors writes memory as it lies, whatever the strides.
        _write(made, {key: np.asarray(value, order="C") for key, value in results.items()})
    foreign = sorted(
        name
        for name in session.operators
        if name.partition("::")[0] not in runtime.standard_domains
    )
    return {
        "inputs": [asdict(spec) for spec in session.inputs],
        "outputs": [asdict(spec) for spec in session.outputs],
        "operators": dict(session.operators),
        "custom_operators": foreign,
        "violations": list(session.violations),
        "runtime": session.runtime,
        "precision": session.precision,
        "weight_type": session.weight_type or session.precision,
        "compute_type": session.compute_type or session.precision,
        "device": session.device,
        "other_precision": list(session.other_precision),
        "metadata": dict(session.metadata),
        "estimates": [asdict(own) for own in session.estimates],
        "fidelity": runtime.fidelity(),
    }


def _trace(runtime: Runtime, artifact: Path, given: Path, made: Path) -> dict[str, Any]:
    """Errors of the model's blocks on one input: see parity.block_trace."""
    content = _nested(given)
    floors = content["noise"]
    references = [
        BlockReference(block, value, float(floors[block]))
        for block, value in content["block"].items()
    ]
    with _translated(f"{artifact.name} cannot be traced"):
        values = runtime.open(artifact).values(content["input"])
        return {"blocks": [asdict(error) for error in trace_blocks(values, references)]}


def _write(made: Path, arrays: dict[str, np.ndarray]) -> None:
    content = save(arrays)
    try:
        made.write_bytes(content)
    except OSError as error:
        raise no_room(error) from error


def _take_apart(runtime: Runtime, artifact: Path, given: Path, made: Path) -> dict[str, Any]:
    """The quantized tensors: arrays and plain values of each by its number."""
    assert runtime.take_apart is not None
    content = _nested(given)
    program, restored = (Path(str(content["paths"][name])) for name in ("program", "restored"))
    runs = [content[group] for group in content if group != "paths"]
    with _translated(f"{artifact.name} cannot be taken apart"):
        return _tensors(runtime.take_apart(artifact, program, restored, runs), made)


def _widen(runtime: Runtime, artifact: Path, given: Path, made: Path) -> dict[str, Any]:
    """The constants of a float16 artifact, as `_take_apart` gives tensors."""
    assert runtime.widen is not None
    paths = _nested(given)["paths"]
    program, restored = (Path(str(paths[name])) for name in ("program", "restored"))
    with _translated(f"{artifact.name} cannot be taken apart"):
        return _tensors(runtime.widen(artifact, program, restored), made)


def _tensors(found: Iterable[object], made: Path) -> dict[str, Any]:
    """Tensors as plain values; their arrays are written by number and name."""
    arrays: dict[str, np.ndarray] = {}
    plain: list[dict[str, Any]] = []
    for number, tensor in enumerate(found):
        values = vars(tensor)
        own = {name: v for name, v in values.items() if isinstance(v, np.ndarray)}
        arrays |= {f"{number}{SEPARATOR}{n}": np.array(v, order="C") for n, v in own.items()}
        plain.append({name: v for name, v in values.items() if name not in own})
    _write(made, arrays)
    return {"tensors": plain}


def _compiled_problems(runtime: Runtime, artifact: Path, given: Path, made: Path) -> dict[str, Any]:
    assert runtime.compiled_problems is not None
    with _translated(f"{artifact.name} cannot be compiled again"):
        return {"problems": list(runtime.compiled_problems(artifact))}


def _reduce(runtime: Runtime, artifact: Path, given: Path, made: Path) -> dict[str, Any]:
    """A piece of an artifact: its arrays as "kind/run name"."""
    assert runtime.reduce is not None
    content = _nested(given)
    program, piece = (Path(str(content["paths"][name])) for name in ("program", "piece"))
    runs = [content[group] for group in content if group != "paths"]
    with _translated(f"{artifact.name} cannot be reduced"):
        found = runtime.reduce(artifact, program, piece, runs)
    kinds = {"inputs": found.inputs, "outputs": found.outputs, "rounded": found.rounded}
    arrays = {
        f"{kind}{SEPARATOR}{number} {name}": np.asarray(value, order="C")
        for kind, every in kinds.items()
        for number, own in enumerate(every)
        for name, value in own.items()
    }
    _write(made, arrays)
    return {k: v for k, v in vars(found).items() if k not in kinds}


def no_room(error: OSError) -> OutputError:
    """What to say where the temporary folder cannot be written."""
    return OutputError(
        f"cannot write temporary files: {(error.strerror or str(error)).lower()}",
        "free some space in the temporary folder, or set TMPDIR to another one",
    )


_TASKS = {
    "run": _run,
    "run-second": _run_second,
    "trace": _trace,
    "take-apart": _take_apart,
    "compiled-problems": _compiled_problems,
    "widen": _widen,
    "reduce": _reduce,
}


def _nested(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Arrays saved as "group/name", by group and name, in the order of the file."""
    groups: dict[str, dict[str, np.ndarray]] = {}
    with np.load(path) as archive:
        for key in archive.files:
            group, _, name = key.partition(SEPARATOR)
            groups.setdefault(group, {})[name] = archive[key]
    return groups


@contextmanager
def _translated(message: str) -> Iterator[None]:
    """Convert exceptions of a vendor's library to ArtifactError."""
    try:
        yield
    except SlideDeployError:
        raise
    except Exception as error:
        raise ArtifactError(f"{message}: {_first_line(error)}", "export it again") from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
