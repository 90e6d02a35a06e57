"""Change an attribute of one operator in an artifact's file.

`index` counts the operators of a type in execution order, which is the order of the modules in the
model, since each depends on the one before.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

from benchmarks.mutation.mutation import Edit

__all__ = ["approximate_gelu", "layer_norm_epsilon"]


# TorchScript's code leaves the epsilon out where it is torch's default.
NORM = r"torch\.layer_norm\((.*?)(?:, [\d.e-]+)?\)$"


def layer_norm_epsilon(index: int, epsilon: float) -> dict[str, Edit]:
    """Edits that change the epsilon of LayerNorm number `index`, for every target."""
    exact = repr(float(epsilon))
    return {
        "onnx": lambda clean, new: _onnx(clean, new, "LayerNormalization", index, epsilon),
        "openvino": lambda clean, new: _openvino(clean, new, "MVN", index, ("eps", exact)),
        "coreml": lambda clean, new: _coreml(clean, new, "layer_norm", index, ("epsilon", epsilon)),
        "torchscript": lambda clean, new: _torchscript(
            clean, new, NORM, index, rf"torch.layer_norm(\1, {exact})"
        ),
    }


def approximate_gelu(index: int) -> dict[str, Edit]:
    """Edits that use the tanh approximation in GELU number `index`.

    coremltools 9.0 ignores `approximate="tanh"` of torch.export and writes erf, so for Core ML the
    error can only be made in the file. ONNX has no GELU operator before opset 20.
    """
    mode = ("approximation_mode", "TANH")
    mil = ("mode", "TANH_APPROXIMATION")
    code = r'torch.gelu(\1, approximate="tanh")'
    return {
        "openvino": lambda clean, new: _openvino(clean, new, "Gelu", index, mode),
        "coreml": lambda clean, new: _coreml(clean, new, "gelu", index, mil),
        "torchscript": lambda clean, new: _torchscript(
            clean, new, r"torch\.gelu\((.*)\)$", index, code
        ),
    }


def _onnx(clean: Path, new: Path, kind: str, index: int, epsilon: float) -> None:
    import onnx

    model = onnx.load(clean)
    node = [node for node in model.graph.node if node.op_type == kind][index]
    (attribute,) = (entry for entry in node.attribute if entry.name == "epsilon")
    attribute.f = epsilon
    onnx.save(model, new)


def _openvino(clean: Path, new: Path, kind: str, index: int, change: tuple[str, str]) -> None:
    shutil.copytree(clean, new)
    (path,) = new.glob("*.xml")
    name, value = change
    pattern = rf'(<layer [^>]*type="{kind}"[^>]*>\s*<data [^>]*\b{name}=")[^"]*'
    path.write_text(_at(index, pattern, rf"\g<1>{value}", path.read_text()))


def _coreml(clean: Path, new: Path, kind: str, index: int, change: tuple[str, Any]) -> None:
    from coremltools.proto import Model_pb2

    shutil.copytree(clean, new)
    (path,) = new.rglob("*.mlmodel")
    model = Model_pb2.Model()
    model.ParseFromString(path.read_bytes())
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    constants = {op.outputs[0].name: op for op in block.operations if op.type == "const"}
    operation = [op for op in block.operations if op.type == kind][index]
    name, value = change
    argument = operation.inputs[name].arguments[0]
    # Several operations may share the constant, so this one gets a value of its own.
    argument.value.CopyFrom(constants[argument.name].attributes["val"])
    tensor = argument.value.immediateValue.tensor
    stored = tensor.strings if isinstance(value, str) else tensor.floats
    stored.values[:] = [value]
    path.write_bytes(model.SerializeToString())


def _torchscript(clean: Path, new: Path, pattern: str, index: int, code: str) -> None:
    with zipfile.ZipFile(clean) as old, zipfile.ZipFile(new, "w", zipfile.ZIP_STORED) as made:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(".py"):
                content = _at(index, rf"(?m){pattern}", code, content.decode()).encode()
            made.writestr(name, content)


def _at(index: int, pattern: str, replacement: str, text: str) -> str:
    """Replace match number `index`."""
    match = list(re.finditer(pattern, text))[index]
    return text[: match.start()] + match.expand(replacement) + text[match.end() :]
