"""Runs ExecuTorch programs for Arm's Ethos-U, their TOSA programs on Arm's reference model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slide_deploy.errors import ArtifactError, ConversionError
from slide_deploy.ethos_u import files
from slide_deploy.ethos_u.compiler import commands_of, compile_spec
from slide_deploy.ethos_u.devices import Device
from slide_deploy.ethos_u.files import FOLDER, GRAPH, PACKAGES
from slide_deploy.ethos_u.graph import load_graph, metadata_of, specs_of, tensors
from slide_deploy.ethos_u.program import Program, read_program, run_program
from slide_deploy.ethos_u.tosa import tosa_operators
from slide_deploy.protocols import Arrays, Estimate, Runtime, Session
from slide_deploy.types import Fidelity, TensorSpec
from slide_deploy.validators._quantized.ethos_u import is_quantized, take_apart
from slide_deploy.validators._quantized.ethos_u_program import missing_integers, other_numbers

if TYPE_CHECKING:
    from torch.fx import GraphModule

__all__ = ["RUNTIME"]

BACKEND = "EthosUBackend"

CONVERTING = "quantized_decomposed::"


def open_session(path: Path, *, threads: int = 1) -> Session:
    """Load the program of the first device, whose integer programs the TOSA reference model runs
    in place of the NPU; the graph of a folder without a program, which one without quantization
    is, into PyTorch.

    Raises ArtifactError for a quantized graph without program, and for an unknown device.
    """
    graph, devices = load_graph(path / GRAPH), files.compiled_devices(path)
    quantized = is_quantized(graph)
    if quantized and not devices:
        raise ArtifactError(f"{path.name} has no program of a device", "export it again")
    if not devices:
        return _on_cpu(path, graph, threads)
    inputs, outputs = specs_of(path / GRAPH)
    programs = {device.name: read_program(path / f"{device.name}.pte") for device in devices}
    first = programs[devices[0].name]
    tosa = files.tosa_programs(path, len(first.delegates))
    operators = [name for program in tosa for name in tosa_operators(program)]

    def run(feeds: Arrays) -> dict[str, np.ndarray]:
        made = run_program(first, tosa, [feeds[spec.name] for spec in inputs])
        return {spec.name: array for spec, array in zip(outputs, made, strict=True)}

    computing = [name for name in operators if not name.startswith("CONST")]
    estimates = tuple(_estimates(path, devices, programs, len(computing)))
    names = ", ".join(programs)
    found = files.versions()
    return Session(
        inputs=inputs,
        outputs=outputs,
        run=run,
        operators=Counter([*(f"tosa::{name}" for name in operators), *first.kernels]),
        runtime=f"TOSA reference model {found['tosa-tools']}, in ExecuTorch programs for {names}",
        precision="int8 weights and int8 activations",
        values=lambda feeds: iter(()),
        violations=tuple(_violations(programs)),
        weight_type="int8",
        compute_type="int8",
        device=f"simulated {names}",
        other_precision=estimates[0].on_cpu,
        metadata=metadata_of(path / GRAPH),
        estimates=estimates,
    )


def open_second(path: Path) -> Session:
    """Load the fake-quantized graph into PyTorch."""
    return _on_cpu(path, load_graph(path / GRAPH), 1)


def compiled_problems(path: Path) -> Iterator[str]:
    """See `Runtime.compiled_problems`: the TOSA programs must have the numbers of the graph. The
    commands in the program of each device must be what Vela makes again of them, with the same
    estimates; around them, the programs of all devices must be the same."""
    devices = files.compiled_devices(path)
    programs = {device: read_program(path / f"{device.name}.pte") for device in devices}
    for device, program in programs.items():
        tosa = files.tosa_programs(path, len(program.delegates))
        if device is devices[0]:
            graph = load_graph(path / GRAPH)
            if not _on_cpu_kernels(program):
                yield from missing_integers(graph, tosa)
            yield from other_numbers(graph, tosa)
        yield from _compiled_problems(path, device, program, tosa)
        if program.around != programs[devices[0]].around:
            yield f"{device.name}.pte is another program than {devices[0].name}.pte"


def _compiled_problems(
    path: Path, device: Device, program: Program, tosa: Sequence[bytes]
) -> Iterator[str]:
    recorded = metadata_of(path / GRAPH).get("ethos-u-vela", "unknown")
    if recorded != (installed := files.versions()["ethos-u-vela"]):
        yield (
            f"{device.name}.pte was compiled by Vela {recorded}, and {installed} is installed: "
            "export it again, or install that version"
        )
        return
    summary = files.load_summary(path / f"{device.name}.json")
    try:
        again = [commands_of(own, device) for own in tosa]
    except ConversionError as error:
        yield str(error)
        return
    options = {spec.key: spec.value for spec in compile_spec(device)._to_list()}
    for number, (delegate, made) in enumerate(zip(program.delegates, again, strict=True)):
        if (delegate.backend, dict(delegate.options)) != (BACKEND, options):
            yield f"{device.name}.pte was not compiled for {device.name}"
        elif delegate.content != made.content:
            yield f"{device.name}.pte is not what program-{number}.tosa compiles to"
    if summary.programs != tuple(dict(own.summary) for own in again):
        yield f"{device.name}.json does not have the estimates of Vela for {device.name}"


def _on_cpu(path: Path, graph: GraphModule, threads: int) -> Session:
    import torch

    torch.set_num_threads(threads)
    inputs, outputs = specs_of(path / GRAPH)
    kind = "int8" if is_quantized(graph) else "float32"
    return Session(
        inputs=inputs,
        outputs=outputs,
        run=_runner(graph, inputs, outputs),
        operators=Counter(
            str(node.target).replace(".", "::", 1).partition(".")[0]
            for node in graph.graph.nodes
            if node.op == "call_function" and "." in str(node.target)
        ),
        runtime=f"PyTorch {torch.__version__}",
        precision=kind,
        values=lambda feeds: iter(()),
        weight_type=kind,
        compute_type=kind,
        device="CPU",
        metadata=metadata_of(path / GRAPH),
    )


def _runner(
    graph: GraphModule, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Callable[[Arrays], dict[str, np.ndarray]]:
    import torch

    def run(feeds: Arrays) -> dict[str, np.ndarray]:
        with torch.no_grad():
            made = graph(*tensors(feeds, (spec.name for spec in inputs)))
        values = made if isinstance(made, tuple | list) else (made,)
        return {spec.name: own.numpy() for spec, own in zip(outputs, values, strict=True)}

    return run


def _violations(programs: dict[str, Program]) -> Iterator[str]:
    for name, program in programs.items():
        if not program.delegates:
            yield f"{name}.pte leaves every operator on the CPU"


def _on_cpu_kernels(program: Program) -> tuple[str, ...]:
    return tuple(name for name in program.kernels if not name.startswith(CONVERTING))


def _estimates(
    path: Path, devices: Sequence[Device], programs: Mapping[str, Program], operators: int
) -> Iterator[Estimate]:
    for device in devices:
        summary = files.load_summary(path / f"{device.name}.json")
        kernels = _on_cpu_kernels(programs[device.name])
        if sorted(kernels) != sorted(own.rpartition(": ")[2] for own in summary.on_cpu):
            raise ArtifactError(
                f"{device.name}.json names other operators on the CPU than {device.name}.pte has",
                "export it again",
            )
        yield files.estimate_of(summary, device, operators)


RUNTIME = Runtime(
    target="ethos-u",
    recognises=lambda path: path.name.endswith(FOLDER),
    open=open_session,
    fidelity=lambda: Fidelity.SIMULATED,
    packages=PACKAGES,
    extra="ethos-u",
    standard_domains=frozenset({"tosa", "aten", "quantized_decomposed"}),
    second_opinion="the fake-quantized graph in PyTorch",
    open_second=open_second,
    take_apart=take_apart,
    estimates=True,
    compiled_problems=compiled_problems,
)
