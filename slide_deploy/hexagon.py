"""Qualcomm's Hexagon NPUs: SoCs, files of an artifact, compiler and simulator (onnxruntime-qnn).

The compiler and the simulator are one library, which Qualcomm calls HTP backend: it compiles an
ONNX file with quantized operators for one SoC, and runs the result, a context binary, on this
machine. Run as `python -m slide_deploy.hexagon MODEL CONTEXT SOC`, it compiles one file: the
binary is the same each time only where it is the first that a process compiles.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slide_deploy.errors import ConversionError
from slide_deploy.utils.machine import refused_by_linux_wheels

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

__all__ = [
    "FOLDER",
    "MODEL",
    "PACKAGES",
    "SOCS",
    "compile_for",
    "open_context",
    "unsupported",
    "version",
]

# How the folder of an artifact ends, and its file that any runtime of ONNX can run.
FOLDER, MODEL = "_qnn_model", "model.onnx"

PACKAGES = ("onnx", "onnxruntime", "onnxruntime_qnn")

# By name the number that the compiler takes: Qnn_SocModel_t in QnnTypes.h of Qualcomm's AI Runtime
# SDK; QCS6490 is that of QCM6490 in ExecuTorch's list, with the same NPU.
SOCS = {
    "SM8350": 30,  # Snapdragon 888
    "SM8450": 36,  # Snapdragon 8 Gen 1
    "SM8475": 42,  # Snapdragon 8+ Gen 1
    "SM8550": 43,  # Snapdragon 8 Gen 2
    "SM8650": 57,  # Snapdragon 8 Gen 3
    "SM8750": 69,  # Snapdragon 8 Elite
    "SM8850": 87,  # Snapdragon 8 Elite Gen 5
    "SC8380XP": 60,  # Snapdragon X Elite
    "QCS6490": 93,  # Dragonwing, for the Internet of things
    "QCS9100": 77,  # Dragonwing, for robots
    "SA8295": 39,  # Snapdragon Cockpit
}

OLDEST_GLIBC = (2, 35)

PROVIDER = "QNNExecutionProvider"

# The exit code of a compilation that would leave operators on the CPU.
ON_CPU = 3


def compile_for(soc: str, model: Path, context: Path) -> None:
    """Compile the QDQ file `model` for a SoC to `context`, an ONNX file that holds the binary.

    Raises ConversionError where an operator would stay on the CPU, or the compiler fails.
    """
    command = [sys.executable, "-W", "ignore", "-m", __name__]
    done = subprocess.run(
        [*command, str(model.resolve()), str(context.resolve()), soc],
        capture_output=True,
        text=True,
        cwd=context.parent,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
        check=False,
    )
    if done.returncode == ON_CPU:
        told = done.stdout.strip().splitlines()[-1]  # the library prints to the same stream
        raise ConversionError(
            f"Hexagon's compiler for {soc} leaves operators on the CPU: {told}",
            "try another --lowering",
            done.stderr,
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ConversionError(
            f"Hexagon's compiler failed for {soc} (exit {done.returncode}): {last[:300]}",
            "--debug shows its output; try another --lowering",
            done.stderr,
        )


def open_context(context: Path) -> InferenceSession:
    """A session that runs a compiled file on the simulator; nothing of it runs on the CPU.

    The file's name begins with that of the SoC that it was compiled for.
    """
    return _session(context.read_bytes(), context.name.partition(".")[0], {})


def unsupported() -> str:
    """Why the package cannot be installed on this machine; empty if it can."""
    return refused_by_linux_wheels(OLDEST_GLIBC)


def version() -> str:
    """The version of the compiler and simulator."""
    from importlib.metadata import version as installed

    return installed("onnxruntime-qnn")


def _session(model: bytes, soc: str, entries: dict[str, str]) -> InferenceSession:
    import onnxruntime
    import onnxruntime_qnn as qnn

    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    for key, value in {"session.disable_cpu_ep_fallback": "1", **entries}.items():
        options.add_session_config_entry(key, value)
    backend = {"backend_path": qnn.get_qnn_htp_path(), "soc_model": str(SOCS[soc])}
    options.add_provider_for_devices(_devices(onnxruntime, qnn), backend)
    # From bytes: the compiler would put the file's path into the binary.
    return onnxruntime.InferenceSession(model, options)


def _devices(onnxruntime: Any, qnn: Any) -> list[Any]:
    """The simulator, registered on the first call."""
    found = [d for d in onnxruntime.get_ep_devices() if d.ep_name == PROVIDER]
    if not found:
        onnxruntime.register_execution_provider_library(PROVIDER, qnn.get_library_path())
        found = [d for d in onnxruntime.get_ep_devices() if d.ep_name == PROVIDER]
    return found[:1]


def _main(model: str, context: str, soc: str) -> None:
    content = Path(model).read_bytes()
    try:
        _session(content, soc, _writing(context))
    except Exception as error:
        if "fallback to CPU EP has been explicitly disabled" not in str(error):
            raise
        print(", ".join(_left_on_cpu(content, soc)))
        print(error, file=sys.stderr)
        sys.exit(ON_CPU)


def _writing(context: str) -> dict[str, str]:
    return {
        "ep.context_enable": "1",
        "ep.context_file_path": context,
        "ep.context_embed_mode": "1",  # in the ONNX file: one file for each SoC
    }


def _left_on_cpu(model: bytes, soc: str) -> list[str]:
    """The operators that the compiler does not take, each with its kind."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        context = str(Path(folder, "context.onnx"))
        _session(model, soc, {**_writing(context), "session.disable_cpu_ep_fallback": "0"})
        nodes = onnx.load(context).graph.node
    return [
        f"{node.name} ({node.op_type})"
        for node in nodes
        if node.op_type not in ("EPContext", "QuantizeLinear", "DequantizeLinear")
    ]


if __name__ == "__main__":
    _main(*sys.argv[1:])
