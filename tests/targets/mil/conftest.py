"""Real packages on disk, written by coremltools from a few MIL operations."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slide_deploy.validators._mil import evaluate, read_package

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types
    from coremltools.proto import Model_pb2

    logging.disable(logging.NOTSET)

TARGETS = {5: ct.target.iOS15, 6: ct.target.iOS16, 7: ct.target.iOS17, 8: ct.target.iOS18}
TYPES = {"float32": types.fp32, "float16": types.fp16, "int32": types.int32}

Write = Callable[..., Path]
Run = Callable[..., list[np.ndarray]]
Edit = Callable[[Path, Callable[[Any], None]], Path]

MODEL = "Data/com.apple.CoreML/model.mlmodel"


@pytest.fixture(scope="session", autouse=True)
def _light_garbage() -> Iterator[None]:
    """coremltools collects garbage on every conversion, among all that torch has imported."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def write(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """write(build, inputs, opset=5): a package that computes `build` of inputs like these."""

    def save(
        build: Callable[..., Any], inputs: Sequence[Any], opset: int = 5, described: Any = None
    ) -> Path:
        path = tmp_path_factory.mktemp("mil") / "model.mlpackage"
        specs = [mb.TensorSpec(x.shape, TYPES[str(x.dtype)]) for x in inputs]
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            logging.disable(logging.CRITICAL)
            program = mb.program(input_specs=specs, opset_version=TARGETS[opset])(build)
            model = ct.convert(
                program,
                source="milinternal",
                convert_to="mlprogram",
                minimum_deployment_target=TARGETS[opset],
                compute_precision=ct.precision.FLOAT32,
                pass_pipeline=ct.PassPipeline.EMPTY,
                skip_model_load=True,
                inputs=described,
            )
            model.save(str(path))
            logging.disable(logging.NOTSET)
        return path

    return save


@pytest.fixture(scope="session")
def run(write: Write) -> Run:
    """run(build, inputs, opset=5): what that package computes of these inputs."""

    def outputs(build: Callable[..., Any], inputs: Sequence[Any], opset: int = 5) -> list[Any]:
        program = read_package(write(build, inputs, opset))
        feeds = {v.name: x for v, x in zip(program.arguments, inputs, strict=True)}
        results = evaluate(program, feeds)
        return [results[feature.name] for feature in program.outputs]

    return outputs


@pytest.fixture(scope="session")
def edit() -> Edit:
    """edit(path, change): the package after `change` was made to its model message."""

    def apply(path: Path, change: Callable[[Any], None]) -> Path:
        model = Model_pb2.Model()
        model.ParseFromString((path / MODEL).read_bytes())
        change(model)
        (path / MODEL).write_bytes(model.SerializeToString())
        return path

    return apply
