"""Quantizes for Arm's Ethos-U with Arm's quantizer, and compiles the result for its devices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slide_deploy.errors import UsageError
from slide_deploy.ethos_u.compiler import (
    Lowered,
    commands_of,
    compile_spec,
    lower,
    operators_on_cpu,
    program_of,
)
from slide_deploy.ethos_u.devices import DEVICES, Device
from slide_deploy.ethos_u.files import GRAPH, Summary, save_summary, versions
from slide_deploy.ethos_u.graph import (
    example,
    load_graph,
    metadata_of,
    save_graph,
    specs_of,
    tensors,
)
from slide_deploy.protocols import Calibration
from slide_deploy.types import Options

if TYPE_CHECKING:
    from torch.fx import GraphModule

__all__ = ["DEFAULT_DEVICE", "parse_devices", "quantize"]

DEFAULT_DEVICE = "ethos-u85-256"

# Arm's own, 2⁻¹⁶, is coarser than small constants need, such as LayerNorm's epsilon.
SMALLEST_SCALE = 2.0**-32


def parse_devices(value: object) -> str:
    """Names of devices, separated by commas; UsageError for an unknown one, and for devices that
    need different programs."""
    names = tuple(dict.fromkeys(part.strip().lower() for part in str(value).split(",")))
    for name in names:
        if name not in DEVICES:
            raise UsageError(
                f"the Ethos-U device {name[:30]!r} is unknown", f"known: {', '.join(DEVICES)}"
            )
    if other := [n for n in names if DEVICES[n].family != DEVICES[names[0]].family]:
        raise UsageError(
            f"{names[0]} and {other[0]} need different programs: Ethos-U85 has operators that the "
            "others lack",
            "export once for each",
        )
    return ",".join(names)


def quantize(program: Path, path: Path, calibration: Calibration, options: Options) -> None:
    """Write the folder `path` from the folder `program` of the float32 graph: the quantized graph,
    its TOSA programs, and a program with estimates for each device."""
    path.mkdir()
    asked = parse_devices(options.target_options.get("device", DEFAULT_DEVICE)).split(",")
    devices = [DEVICES[name] for name in asked]
    floats = load_graph(program / GRAPH)
    names = [spec.name for spec in specs_of(program / GRAPH)[0]]
    quantized = _quantized(floats, names, calibration, devices[0])
    own = metadata_of(program / GRAPH)
    save_graph(quantized, path / GRAPH, {**own, **calibration.metadata, **versions()})
    lowered = lower(load_graph(path / GRAPH), devices[0])
    for number, tosa in enumerate(lowered.programs):
        (path / f"program-{number}.tosa").write_bytes(tosa)
    for device in devices:
        _compile(lowered, device, path)


def _compile(lowered: Lowered, device: Device, path: Path) -> None:
    commands = [commands_of(tosa, device) for tosa in lowered.programs]
    (path / f"{device.name}.pte").write_bytes(program_of(lowered, commands, device))
    summary = Summary(tuple(own.summary for own in commands), operators_on_cpu(lowered))
    save_summary(summary, path / f"{device.name}.json")


def _quantized(
    floats: GraphModule, names: list[str], calibration: Calibration, device: Device
) -> Any:
    """The graph with Arm's quantizer's operators around each of its own."""
    import torch
    from executorch.backends.arm.quantizer import EthosUQuantizer
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = EthosUQuantizer(compile_spec(device))
    quantizer.set_global(_smallest_and_largest())
    with torch.no_grad():
        exported = torch.export.export(floats, example(floats))
        prepared = prepare_pt2e(exported.module(check_guards=False), quantizer)
        for run in calibration.runs:
            prepared(*tensors(run, names))
        return convert_pt2e(prepared)


def _smallest_and_largest() -> Any:
    """Arm's configuration, which has 8 bits and one scale per channel of weights, with ranges from
    the smallest to the largest value. Its histograms took 15 times as long, and were no more
    accurate on the digits."""
    from executorch.backends.arm.quantizer import get_symmetric_quantization_config
    from torchao.quantization.pt2e.observer import MinMaxObserver

    config = get_symmetric_quantization_config(eps=SMALLEST_SCALE)
    observer = MinMaxObserver.with_args(eps=SMALLEST_SCALE)
    activations = replace(config.input_activation, observer_or_fake_quant_ctr=observer)
    return replace(config, input_activation=activations, output_activation=activations)
