"""Core ML's messages are read by Apple's own descriptions of them, without coremltools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from slide_deploy.errors import ArtifactError
from slide_deploy.validators._mil.schema import parse_model
from tests.schemas import CORE_ML, core_ml_messages
from tests.targets.mil.conftest import MODEL, Model_pb2, mb


def test_the_descriptions_are_those_of_coremltools() -> None:
    stored = FileDescriptorSet.FromString(CORE_ML.read_bytes())
    assert list(stored.file) == core_ml_messages(), "run `make schemas`"


def test_a_program_is_read_as_coremltools_reads_it(write: Callable[..., Path]) -> None:
    x = np.zeros((2, 3), np.float32)
    data = (write(lambda x: mb.softmax(x=x), [x], 7) / MODEL).read_bytes()
    theirs, ours = Model_pb2.Model.FromString(data), parse_model(data, "model")
    assert type(theirs) is not type(ours)
    assert str(ours) == str(theirs)


def test_of_another_kind_of_model_the_kind_is_read() -> None:
    network = Model_pb2.Model(specificationVersion=4)
    network.neuralNetwork.layers.add(name="layer")
    assert parse_model(network.SerializeToString(), "model").WhichOneof("Type") == "neuralNetwork"


def test_what_is_no_message_is_refused() -> None:
    with pytest.raises(ArtifactError, match="broken is not a Core ML model"):
        parse_model(b"\xff\xff\xff", "broken")
