"""Core ML's protobuf messages, without running coremltools (its __init__ imports torch)."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from google.protobuf.message import DecodeError

from slide_deploy.errors import ArtifactError, MissingLibrary

__all__ = ["parse_model"]

_ALIAS = "_slide_deploy_coreml_proto"


def parse_model(data: bytes, name: str) -> Any:
    """The CoreML.Specification.Model message in `data`."""
    model = _messages().Model()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ArtifactError(f"{name} is not a Core ML model: {error}") from error
    return model


def _messages() -> ModuleType:
    """coremltools/proto/Model_pb2, imported through a package of ours with the same folder."""
    if _ALIAS not in sys.modules:
        spec = importlib.util.find_spec("coremltools")
        if spec is None or spec.origin is None:
            raise MissingLibrary("reading a Core ML package", ["coremltools"], "coreml")
        package = ModuleType(_ALIAS)
        package.__path__ = [str(Path(spec.origin).parent / "proto")]
        sys.modules[_ALIAS] = package
    return importlib.import_module(f"{_ALIAS}.Model_pb2")
