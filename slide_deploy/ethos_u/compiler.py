"""Compiles a fake-quantized graph: to TOSA with ExecuTorch, and TOSA to commands with Vela."""

from __future__ import annotations

import contextlib
import copy
import csv
import io
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slide_deploy.errors import ConversionError
from slide_deploy.ethos_u.devices import Device
from slide_deploy.ethos_u.graph import block_of, example

if TYPE_CHECKING:
    from torch.fx import GraphModule

__all__ = [
    "Commands",
    "Lowered",
    "commands_of",
    "compile_spec",
    "lower",
    "operators_on_cpu",
    "program_of",
]


@dataclass(frozen=True)
class Lowered:
    """The TOSA programs of a graph, and ExecuTorch's program around them, for the CPU."""

    programs: tuple[bytes, ...]
    around: Any


@dataclass(frozen=True)
class Commands:
    """What Vela makes of a TOSA program: commands and weights, and its summary of them."""

    content: bytes
    summary: Mapping[str, str]


def lower(graph: GraphModule, device: Device) -> Lowered:
    """Lower a fake-quantized graph to what the TOSA of a device has (minutes)."""
    import torch
    from executorch.backends.arm.tosa.backend import TOSABackend
    from executorch.backends.arm.tosa.partitioner import TOSAPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    exported = torch.export.export(graph, example(graph))
    partitioner = TOSAPartitioner(TOSABackend.filter_tosa_compile_specs(compile_spec(device)))
    around = to_edge_transform_and_lower(
        exported,
        partitioner=[partitioner],
        # The graph has operators that are none of the edge dialect, to quantize and dequantize.
        compile_config=EdgeCompileConfig(_check_ir_validity=False),
    )
    delegates = _delegates(around.exported_program().graph_module)
    return Lowered(tuple(module.processed_bytes for _, module in delegates), around)


def commands_of(program: bytes, device: Device) -> Commands:
    """Compile a TOSA program for a device (seconds); ConversionError where Vela cannot."""
    from executorch.backends.arm.arm_vela import vela_compile

    with tempfile.TemporaryDirectory(prefix="slide-deploy-") as folder:
        said = io.StringIO()
        flags = list(compile_spec(device).compiler_flags)
        try:
            with contextlib.redirect_stdout(said):
                content = vela_compile(program, flags, intermediate_path=folder).processed_bytes
            [summary] = Path(folder, "output").glob("*_summary_*.csv")
        except (Exception, SystemExit) as error:
            raise ConversionError(
                f"Vela failed for {device.name}: {error}",
                "--debug shows its output",
                said.getvalue(),
            ) from error
        with summary.open(newline="") as file:
            [row] = csv.DictReader(file)
    return Commands(content, row)


def program_of(lowered: Lowered, commands: Iterable[Commands], device: Device) -> bytes:
    """ExecuTorch's program (.pte) for a device, with the commands of each TOSA program."""
    from executorch.backends.arm.ethosu import EthosUBackend
    from executorch.exir.lowered_backend_module import LoweredBackendModule

    around = copy.deepcopy(lowered.around)
    graph = around.exported_program().graph_module
    specs = compile_spec(device)._to_list()
    for (name, module), own in zip(_delegates(graph), commands, strict=True):
        made = LoweredBackendModule(
            module.original_module, EthosUBackend.__name__, own.content, specs
        )
        made.meta = module.meta
        setattr(graph, name, made)
    return bytes(around.to_executorch().buffer)


def compile_spec(device: Device) -> Any:
    """What ExecuTorch calls a compile spec."""
    from executorch.backends.arm.ethosu import EthosUCompileSpec

    return EthosUCompileSpec(device.name, device.system, device.memory)


def operators_on_cpu(lowered: Lowered) -> tuple[str, ...]:
    """The operators that no TOSA program has, each with its block, such as "layers.0: aten.cumsum".

    Those that quantize and dequantize at the boundaries of the programs, and views, are not listed.
    """
    nodes = lowered.around.exported_program().graph_module.graph.nodes
    calls = [node for node in nodes if node.op == "call_function"]
    return tuple(
        f"{block_of(node) or 'model'}: {name.replace('.', '::', 1).partition('.')[0]}"
        for node in calls
        if (name := str(getattr(node.target, "_op", "")))
        and not name.startswith(("quantized_decomposed.", "aten.view_copy."))
    )


def _delegates(graph: GraphModule) -> Iterator[tuple[str, Any]]:
    """The parts of the graph for the NPU, by name, in their order."""
    from executorch.exir.lowered_backend_module import LoweredBackendModule

    for node in graph.graph.nodes:
        module = getattr(graph, str(node.target), None) if node.op == "get_attr" else None
        if isinstance(module, LoweredBackendModule):
            yield str(node.target), module
