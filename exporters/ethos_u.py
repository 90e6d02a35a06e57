"""Arm's Ethos-U NPUs: a quantized graph, its TOSA program, and an ExecuTorch program per device."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from slide_deploy.errors import UsageError
from slide_deploy.ethos_u.devices import DEVICES
from slide_deploy.ethos_u.files import FOLDER, GRAPH, PACKAGES, unsupported
from slide_deploy.ethos_u.graph import save_graph
from slide_deploy.exporters._quantize.ethos_u import DEFAULT_DEVICE, parse_devices, quantize
from slide_deploy.protocols import Example, Exporter, TargetOption
from slide_deploy.types import Options, Precision

if TYPE_CHECKING:
    from slide_deploy.capture import Capture

__all__ = ["EXPORTER"]


def write(capture: Capture, path: Path, options: Options) -> None:
    """Write the folder `path` with the float32 graph; UsageError where a shape is free."""
    if any(isinstance(size, str) for spec in capture.inputs for size in spec.shape):
        raise UsageError("Vela needs fixed shapes", "omit --dynamic, or use --batch")
    if any(spec.dtype != "float32" for spec in capture.inputs):
        raise UsageError(
            "Ethos-U takes the normalised input of the model, not pictures", "omit --preprocess"
        )
    from torchao.quantization.pt2e.utils import _fuse_conv_bn_

    specs = {
        "inputs": json.dumps([asdict(spec) for spec in capture.inputs]),
        "outputs": json.dumps([asdict(spec) for spec in capture.outputs]),
    }
    path.mkdir()
    module = capture.program.module(check_guards=False)
    # As the quantizer would: verification compares its weights with those written here.
    _fuse_conv_bn_(module)
    save_graph(module, path / GRAPH, {**capture.metadata, **specs})


INTEGERS = "Ethos-U computes with integers"

CPP = """\
// With ExecuTorch's runtime and its Ethos-U backend linked, on the device:
Module module($path "/DEVICE.pte");
auto result = module.forward(input);  // float32 $shape"""

EXPORTER = Exporter(
    target="ethos-u",
    title="Arm Ethos-U",
    file_name=lambda stem: f"{stem}{FOLDER}",
    write=write,
    packages=PACKAGES,
    extra="ethos-u",
    aliases=("ethos", "vela"),
    precisions=(Precision.W8A8,),
    lacks={
        Precision.FLOAT32: INTEGERS,
        Precision.FLOAT16: INTEGERS,
        Precision.W8: f"{INTEGERS}, of activations too",
        Precision.W8A16: "no model was compiled with activations of 16 bits yet",
    },
    quantize=quantize,
    unsupported=unsupported,
    own_environment=True,
    examples=(Example("C++", CPP),),
    options=(
        TargetOption(
            name="device",
            help=f"NPUs to compile for, separated by commas: {', '.join(DEVICES)}.",
            parse=parse_devices,
            default=DEFAULT_DEVICE,
            names_device=True,
        ),
    ),
)
