"""Usage examples: their form. That they run is tested with each target."""

from __future__ import annotations

import ast
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from slide_deploy import registry
from slide_deploy.packaging.examples import example_code, examples_for
from slide_deploy.packaging.preprocessing import (
    Interpolation,
    Preprocessing,
    Rounding,
    fit,
    load_image,
    preset,
)
from slide_deploy.protocols import Example
from slide_deploy.types import TensorSpec

PICTURE = TensorSpec("image", (1, 24, 32, 3), "uint8", (0, 255))
TENSOR = TensorSpec("image", ("batch", 3, "height", "width"))
SCORES = TensorSpec("logits", (1, 10))
WAY = preset("imagenet", (24, 32))
LABELS = ("cat", "dog")
RESULT = Example("Python", "result = inputs[$input]", labels="['cat', 'dog']")
EVERY = [(t, e) for t in registry.float_targets() for e in registry.exporter(t).examples]


@pytest.mark.parametrize(
    ("target", "example"), EVERY, ids=lambda value: getattr(value, "language", value)
)
@pytest.mark.parametrize("spec", [PICTURE, TENSOR], ids=["picture", "tensor"])
def test_an_example_is_short_and_names_the_artifact(target, example, spec) -> None:
    if example not in examples_for([example], [spec]):
        return
    code = example_code(example, "a.file", [spec], [SCORES], WAY, LABELS)
    assert len(code.splitlines()) < 15
    assert '"a.file"' in code
    assert "$" not in code.replace("$0", "")  # of Swift
    if example.language == "Python":
        ast.parse(code)
        assert ("labels[" in code) == bool(example.labels)


WAYS = {
    "shortest side": WAY,
    "nearest pixel": replace(WAY, rounding=Rounding.NEAREST, interpolation=Interpolation.BILINEAR),
    "exact size": replace(WAY, resize=(24, 32), crop=None),
    "exact size and crop": replace(WAY, resize=(31, 47), interpolation=Interpolation.LANCZOS),
    "crop alone": replace(WAY, resize=None),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("size", [(61, 44), (45, 90)])
def test_pictures_are_resized_and_cropped_exactly_as_in_training(
    way: Preprocessing, size: tuple[int, int], tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.fromarray(pixels).save("cat.jpg", exif=exif)
    made: dict[str, np.ndarray] = {}
    exec(example_code(RESULT, "a", [PICTURE], [SCORES], way, ()), made)
    np.testing.assert_array_equal(made["result"][0], fit(way, load_image(tmp_path / "cat.jpg")))


def test_a_fixed_batch_is_filled(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 40)).save("cat.jpg")
    many = replace(PICTURE, shape=(3, *PICTURE.shape[1:]))
    made: dict[str, np.ndarray] = {}
    exec(example_code(RESULT, "a", [many], [SCORES], WAY, ()), made)
    assert made["result"].shape == many.shape
    other = replace(RESULT, language="Swift")
    assert examples_for([RESULT, other], [PICTURE]) == (RESULT, other)
    assert examples_for([RESULT, other], [many]) == (RESULT,)


def test_free_sizes_and_several_inputs_have_arrays_of_the_right_type() -> None:
    ids = TensorSpec("ids", (1, 8), "int64")
    made: dict[str, dict[str, np.ndarray]] = {}
    exec(example_code(RESULT, "a", [TENSOR, ids], [TENSOR], None, ()), made)
    shapes = {name: (own.shape, str(own.dtype)) for name, own in made["inputs"].items()}
    assert shapes == {"image": ((1, 3, 224, 224), "float32"), "ids": ((1, 8), "int64")}
    assert examples_for([replace(RESULT, language="Swift")], [TENSOR, ids]) == ()


def test_names_from_files_stay_strings() -> None:
    evil = '"]; import os #\n'
    code = example_code(RESULT, evil, [replace(TENSOR, name=evil)], [SCORES], None, ())
    strings = [n.value for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Constant)]
    assert strings.count(evil) == 2
