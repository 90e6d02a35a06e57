"""Core ML's protobuf messages, as far as an ML program needs them.

`coreml.binpb` holds Apple's descriptions of them (licence: `coreml.LICENSE`; written by `make
schemas`). They are kept apart from protobuf's own list of messages, where coremltools registers
files of the same names.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from slide_deploy.errors import ArtifactError

__all__ = ["parse_model"]

_MESSAGES = Path(__file__).with_name("coreml.binpb")


def parse_model(data: bytes, name: str) -> Any:
    """The CoreML.Specification.Model message in `data`; of other kinds of model only the kind."""
    model = _model_class()()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ArtifactError(f"{name} is not a Core ML model: {error}") from error
    return model


@cache
def _model_class() -> Any:
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(_MESSAGES.read_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName("CoreML.Specification.Model"))
