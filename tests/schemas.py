"""The JSON Schemas of the files that we write, and Core ML's messages from coremltools.

`make schemas` writes them into the package.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

from slide_deploy.artifacts.manifest import Manifest
from slide_deploy.utils.records import json_schema
from slide_deploy.verification.record import Report

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "slide_deploy"
PUBLISHED = {
    PACKAGE / "manifest.schema.json": (Manifest, "manifest"),
    PACKAGE / "report" / "report.schema.json": (Report, "report"),
}
CORE_ML = ROOT / "validators" / "_mil" / "coreml.binpb"
CORE_ML_USED = (
    "FeatureDescription",
    "Metadata",
    "FunctionDescription",
    "ModelDescription",
    "Model",
)


def generated(path: Path) -> dict[str, Any]:
    """The schema that belongs at `path`."""
    kind, name = PUBLISHED[path]
    return json_schema(kind, name, f"slide-deploy {name}.json")


def core_ml_messages() -> list[FileDescriptorProto]:
    """Apple's messages for ML programs; a model of another kind is left as the bytes it is."""
    from coremltools.proto import FeatureTypes_pb2, MIL_pb2, Model_pb2

    features, program, model = (
        FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
        for module in (FeatureTypes_pb2, MIL_pb2, Model_pb2)
    )
    del model.dependency[:], model.public_dependency[:]
    model.dependency.extend([features.name, program.name])
    kept = [message for message in model.message_type if message.name in CORE_ML_USED]
    del model.message_type[:]
    model.message_type.extend(kept)
    for field in model.message_type[-1].field:  # of Model
        if field.HasField("oneof_index") and field.name != "mlProgram":
            field.type = FieldDescriptorProto.TYPE_BYTES
            field.ClearField("type_name")
    return [features, program, model]


def main() -> None:
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    for path in PUBLISHED:
        path.write_text(json.dumps(generated(path), indent=2) + "\n", encoding="utf-8")
    CORE_ML.write_bytes(FileDescriptorSet(file=core_ml_messages()).SerializeToString())


if __name__ == "__main__":
    main()
