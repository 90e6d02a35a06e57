"""Images and classifier predictions as inputs and outputs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

from slide_deploy.errors import ArtifactError
from slide_deploy.validators._mil import as_image, evaluate, read_package, violations

Edit = Callable[[Path, Callable[[Any], None]], Path]
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)


def save(path: Path, build: Any, spec: Any, opset: Any = ct.target.iOS17, **arguments: Any) -> Path:
    with warnings.catch_warnings(), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        program = mb.program(input_specs=[spec], opset_version=opset)(build)
        model = ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=opset,
            compute_precision=ct.precision.FLOAT32,
            pass_pipeline=arguments.pop("pass_pipeline", ct.PassPipeline.EMPTY),
            skip_model_load=True,
            **arguments,
        )
        model.save(str(path))
        logging.disable(logging.NOTSET)
    return path


def as_image_of(color_space: int) -> Callable[[Any], None]:
    """Describe a model's output as an image."""

    def change(model: Any) -> None:
        output = model.description.output[0].type
        *_, height, width = output.multiArrayType.shape
        image = output.imageType
        image.height, image.width, image.colorSpace = height, width, color_space

    return change


@pytest.mark.parametrize("layout", ["RGB", "BGR"])
def test_colours_come_in_the_declared_order(tmp_path: Path, edit: Edit, layout: str) -> None:
    path = save(
        tmp_path / "model.mlpackage",
        lambda x: mb.identity(x=x),
        mb.TensorSpec((1, 3, 4, 5), types.fp32),
        inputs=[ct.ImageType(name="x", shape=(1, 3, 4, 5), color_layout=layout)],
    )
    program = read_package(edit(path, as_image_of(20 if layout == "RGB" else 30)))
    assert program.inputs[0].image == layout
    (found,) = evaluate(program, {"x": PIXELS}).values()
    order = [0, 1, 2] if layout == "RGB" else [2, 1, 0]
    np.testing.assert_array_equal(found, PIXELS.transpose(2, 0, 1)[None, order])
    (given,) = evaluate(program, {"x": found}).values()
    np.testing.assert_array_equal(given, found)
    np.testing.assert_array_equal(as_image(program.outputs[0], found), PIXELS)
    with pytest.raises(ArtifactError, match="not whole numbers 0 to 255"):
        as_image(program.outputs[0], found + np.float32(0.5))
    with pytest.raises(ArtifactError, match=r"not an image of uint8 \[height, width, 3\]"):
        evaluate(program, {"x": PIXELS[..., 0]})


@pytest.mark.parametrize("dtype", ["fp32", "uint8"])
def test_grayscale_may_be_given_as_it_is_stored(tmp_path: Path, edit: Edit, dtype: str) -> None:
    stored = {"grayscale_use_uint8": True} if dtype == "uint8" else {}
    path = save(
        tmp_path / "model.mlpackage",
        lambda x: mb.cast(x=mb.transpose(x=x, perm=[0, 1, 3, 2]), dtype="fp32"),
        mb.TensorSpec((1, 1, 4, 5), getattr(types, dtype)),
        inputs=[ct.ImageType(name="x", shape=(1, 1, 4, 5), color_layout="G", **stored)],
    )
    program = read_package(edit(path, as_image_of(10)))
    assert program.inputs[0].dtype == dtype
    assert violations(program) == []
    (found,) = evaluate(program, {"x": PIXELS[..., 0]}).values()
    np.testing.assert_array_equal(as_image(program.outputs[0], found), PIXELS[..., 0].T)


@pytest.mark.parametrize("classes", [["cat", "dog", "a bird"], [7, 3, 9]])
def test_a_classifier_gives_a_class_and_all_probabilities(
    tmp_path: Path, classes: list[Any]
) -> None:
    path = save(
        tmp_path / "model.mlpackage",
        lambda x: mb.softmax(x=x, axis=-1),
        mb.TensorSpec((1, 3), types.fp32),
        classifier_config=ct.ClassifierConfig(classes),
        pass_pipeline=ct.PassPipeline.DEFAULT,
    )
    program = read_package(path)
    assert violations(program) == []
    x = np.array([[0, 2, 1]], np.float32)
    found = evaluate(program, {"x": x})
    assert found["classLabel"] == classes[1]
    pairs = found["classLabel_probs"]
    assert pairs["key"].tolist() == classes
    np.testing.assert_allclose(pairs["value"], np.exp(x[0]) / np.exp(x).sum(), rtol=1e-6)


def test_classes_of_another_number_are_refused() -> None:
    from slide_deploy.validators._mil.ops import OPERATIONS, call

    arguments = {"probabilities": (np.ones((1, 3), np.float32),), "classes": (np.array(["a"]),)}
    with pytest.raises(ValueError, match="1 classes for 3 probabilities"):
        call(OPERATIONS["classify"], arguments, 6)
