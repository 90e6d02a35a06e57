"""ONNX for onnxruntime and all that reads it."""

from __future__ import annotations

from slide_deploy.exporters._onnx_file import DEFAULT_OPSET, parse_opset, write
from slide_deploy.exporters._quantize.activations import ACTIVATIONS
from slide_deploy.exporters._quantize.onnx import products, quantize
from slide_deploy.protocols import Example, Exporter, TargetOption
from slide_deploy.types import Precision

__all__ = ["EXPORTER"]

PYTHON = """\
session = onnxruntime.InferenceSession($path)
result = session.run([$output], inputs)[0]"""

# Of a page; Node has the same interface in onnxruntime-node.
JAVASCRIPT = """\
// <script src="https://cdn.jsdelivr.net/npm/onnxruntime-web/dist/ort.min.js"></script>
const session = await ort.InferenceSession.create($path);
const context = new OffscreenCanvas($width, $height).getContext("2d");
context.drawImage(picture, 0, 0, $width, $height);  // an <img>; crop it first, as described above
const rgba = context.getImageData(0, 0, $width, $height).data;
const rgb = Uint8Array.from(rgba.filter((_, place) => place % 4 !== 3));
const input = new ort.Tensor("uint8", rgb, [1, $height, $width, 3]);
const result = (await session.run({[$input]: input}))[$output].data;
console.log(result.indexOf(Math.max(...result)));"""

EXAMPLES = (
    Example(
        "Python",
        PYTHON,
        imports=("import onnxruntime",),
        labels='json.loads(session.get_modelmeta().custom_metadata_map["labels"])',
    ),
    Example("JavaScript", JAVASCRIPT, takes="picture"),
)

EXPORTER = Exporter(
    target="onnx",
    title="ONNX",
    file_name=lambda stem: f"{stem}.onnx",
    write=write,
    packages=("torch", "onnx", "onnxscript"),
    extra="onnx",
    precisions=(Precision.FLOAT32, Precision.FLOAT16, Precision.W8A16, Precision.W8A8),
    lacks={
        Precision.W8: "onnxruntime quantizes weights alone in the MatMul of language models only",
    },
    quantize=quantize,
    products=products,
    examples=EXAMPLES,
    options=(
        TargetOption("opset", "ONNX opset, 17 to 23.", parse_opset, str(DEFAULT_OPSET)),
        ACTIVATIONS,
    ),
)
