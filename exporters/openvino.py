"""OpenVINO IR from a trace; float32 stays float32 on disk.

From a trace instead of torch.export, because Slide-Swin-T then runs a sixth faster and converts in
half the time (OpenVINO 2026.4, x86).
"""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slide_deploy.exporters._quantize.activations import ACTIVATIONS
from slide_deploy.exporters._quantize.openvino import products, quantize, without_telemetry
from slide_deploy.exporters._repeated import table_of
from slide_deploy.protocols import Example, Exporter
from slide_deploy.types import Options, Precision

if TYPE_CHECKING:
    from slide_deploy.capture import Capture

__all__ = ["EXPORTER"]

FOLDER = "_openvino_model"


def write(capture: Capture, path: Path, options: Options) -> None:
    """Write the folder `path` with NAME.xml and NAME.bin.

    float16 compresses the weights on disk, which is the default of `save_model`; the runtime
    decompresses them and chooses its own arithmetic.
    """
    without_telemetry()
    import openvino

    model = _converted(capture)
    _store_tables(model)
    for port, spec in (
        *zip(model.inputs, capture.inputs, strict=True),
        *zip(model.outputs, capture.outputs, strict=True),
    ):
        port.get_tensor().set_names({spec.name})
        port.get_node().set_friendly_name(spec.name)
    if capture.inputs[0].is_picture:
        model.inputs[0].get_node().set_layout(openvino.Layout("NHWC"))
    for key, value in capture.metadata.items():
        model.set_rt_info(value, ["slide_deploy", key])
    for key, value in _model_info(capture).items():
        model.set_rt_info(value, ["model_info", key])
    path.mkdir()
    stem = path.name.removesuffix(FOLDER)
    compress = options.precision == Precision.FLOAT16
    try:
        openvino.save_model(model, path / f"{stem}.xml", compress_to_fp16=compress)
    except RuntimeError as error:
        if "iostream" not in str(error):
            raise
        # All that OpenVINO tells of a file that it cannot write; it has removed its own by now.
        reason = "no space left on device, or another failure to write"
        raise OSError(errno.ENOSPC, reason) from error


def _model_info(capture: Capture) -> dict[str, str]:
    """What OpenVINO's Model API reads of a classifier of pictures; empty for other models, whose
    input it would not normalise.

    It passes pictures in BGR, as OpenCV reads them. Of our ways to resize, it knows the exact size;
    `crop` is the nearest to the others. Spaces separate labels.
    """
    (first, *_), outputs = capture.inputs, capture.outputs
    if not first.is_picture or [len(spec.shape) for spec in outputs] != [2]:
        return {}
    way = json.loads(capture.metadata["preprocessing"])
    exact = way["crop"] is None and not isinstance(way["resize"], int)
    info = {
        "model_type": "Classification",
        "reverse_input_channels": "True",
        "resize_type": "standard" if exact else "crop",
        "interpolation_mode": "LINEAR" if way["interpolation"] == "bilinear" else "CUBIC",
    }
    labels = json.loads(capture.metadata.get("labels", "[]"))
    if labels:
        info["labels"] = " ".join("_".join(str(label).split()) for label in labels)
    return info


def _converted(capture: Capture) -> Any:
    import openvino

    sizes = [[-1 if isinstance(size, str) else size for size in s.shape] for s in capture.inputs]
    shapes = [openvino.PartialShape(size) for size in sizes]
    try:
        return openvino.convert_model(capture.traced, example_input=capture.example, input=shapes)
    except RuntimeError:
        # OpenVINO's fusion of attention fails on a bias of several windows (2026.4).
        model = openvino.convert_model(capture.program)
    for port, shape in zip(model.inputs, shapes, strict=True):
        port.get_node().set_partial_shape(shape)
    model.validate_nodes_and_infer_types()
    return model


def _store_tables(model: Any) -> None:
    """Store constants with repeated columns as a table and a Gather, which OpenVINO computes when
    it compiles the model."""
    from openvino import opset13 as ops

    for node in model.get_ops():
        if node.get_type_name() == "Constant" and (found := table_of(node.data)):
            table, index = (ops.constant(part) for part in found)
            gather = ops.gather(table, index, ops.constant(1))
            gather.set_friendly_name(node.get_friendly_name())
            node.output(0).replace(gather.output(0))


# As verified: without the hint, CPUs that can compute in bfloat16, with 8 bits of precision.
PYTHON = (
    'model = openvino.Core().read_model(next(Path($path).glob("*.xml")))\n'
    'result = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})'
    "(inputs)[$output]"
)

CPP = """\
#include <algorithm>
#include <fstream>
#include <iostream>
#include <openvino/openvino.hpp>
int main() {
    std::vector<char> pixels($height * $width * 3);  // rows of R, G, B; fitted as described above
    std::ifstream("cat.rgb", std::ios::binary).read(pixels.data(), pixels.size());
    const std::string folder = $path, name = folder.substr(0, folder.rfind("_openvino_model"));
    auto request = ov::Core().compile_model(folder + "/" + name + ".xml", "CPU",
        ov::hint::inference_precision(ov::element::f32)).create_infer_request();
    request.set_input_tensor(ov::Tensor(ov::element::u8, {1, $height, $width, 3}, pixels.data()));
    request.infer();
    auto result = request.get_output_tensor(); auto scores = result.data<float>();
    std::cout << std::max_element(scores, scores + result.get_size()) - scores << "\\n"; }"""

EXAMPLES = (
    Example(
        "Python",
        PYTHON,
        imports=("from pathlib import Path", "import openvino"),
        labels='json.loads(model.get_rt_info(["slide_deploy", "labels"]).astype(str))',
    ),
    Example("C++", CPP, takes="picture"),
)


EXPORTER = Exporter(
    target="openvino",
    title="OpenVINO",
    file_name=lambda stem: f"{stem}{FOLDER}",
    write=write,
    packages=("torch", "openvino"),
    extra="openvino",
    aliases=("ov",),
    examples=EXAMPLES,
    precisions=(Precision.FLOAT32, Precision.FLOAT16, Precision.W8, Precision.W8A8),
    lacks={Precision.W8A16: "the CPU plugin has no kernels for 16-bit integers"},
    quantize=quantize,
    products=products,
    options=(ACTIVATIONS,),
)
