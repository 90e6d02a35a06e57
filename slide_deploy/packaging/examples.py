"""Usage examples of an artifact, in the languages that its exporter gives."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from string import Template

from slide_deploy.packaging.preprocessing import Preprocessing
from slide_deploy.protocols import Example
from slide_deploy.types import TensorSpec

__all__ = ["example_code", "examples_for"]

PYTHON = "Python"
ANY_SIZE = 224  # of a free height or width: a multiple of what models divide it by


def examples_for(
    examples: Sequence[Example], inputs: Sequence[TensorSpec], *, classifies: bool = False
) -> tuple[Example, ...]:
    """Those for these inputs, and for artifacts that give probabilities or do not; for several
    inputs, or a larger batch, there is Python only."""
    kinds = ("picture" if inputs[0].is_picture else "tensor", "both")
    single = len(inputs) == 1 and _sizes(inputs[0])[:1] == (1,)
    return tuple(
        example
        for example in examples
        if example.takes in kinds
        and example.classifies in (classifies, None)
        and (single or example.language == PYTHON)
    )


def example_code(
    example: Example,
    path: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    preprocessing: Preprocessing | None,
    labels: Sequence[str],
) -> str:
    """The code of an example for the artifact `path`, under 15 lines."""
    first = inputs[0]
    names: Mapping[str, object] = {
        "path": _quoted(path),
        "input": _quoted(first.name),
        "output": _quoted(outputs[0].name),
        "shape": list(_sizes(first)),
        "results": "result" if len(outputs) == 1 else "result, *others",
    }
    if first.is_picture:
        names = {**names, "height": first.shape[1], "width": first.shape[2]}
    code = Template(example.code).substitute(names)
    if example.language != PYTHON:
        return code
    feeds = _picture(first, preprocessing) if first.is_picture else _zeros(inputs)
    named = bool(labels and example.labels)
    imports = sorted(
        {
            *example.imports,
            "import numpy as np",
            *(["import json"] if named else []),
            *(["from PIL import Image, ImageOps"] if first.is_picture else []),
        },
        key=lambda line: line.split()[1].lower(),
    )
    shown = [f"labels = {example.labels}", "print(labels[int(result[0].argmax())])"]
    if not named:
        best = len(outputs[0].shape) == 2
        shown = ["print(int(result[0].argmax()))" if best else "print(result.shape)"]
    return "\n".join([*imports, *feeds, code, *shown])


def _picture(spec: TensorSpec, preprocessing: Preprocessing | None) -> Iterator[str]:
    """Lines that resize and crop as `preprocessing.fit` does."""
    height, width = spec.shape[1:3]
    yield 'picture = ImageOps.exif_transpose(Image.open("cat.jpg")).convert("RGB")'
    way = preprocessing
    if way is None:
        yield f"picture = picture.resize(({width}, {height}))"
    elif way.resize is not None:
        method = f"Image.Resampling.{way.interpolation.upper()}"
        size = f"({way.resize[1]}, {way.resize[0]})" if isinstance(way.resize, tuple) else ""
        whole = "int" if way.rounding == "down" else "round"
        shortest = f"[{whole}({way.resize} * side / min(picture.size)) for side in picture.size]"
        yield f"picture = picture.resize({size or shortest}, {method})"
    if way is not None and way.crop is not None:
        yield (
            f"left, top = round((picture.width - {width}) / 2), "
            f"round((picture.height - {height}) / 2)"
        )
        yield f"picture = picture.crop((left, top, left + {width}, top + {height}))"
    copies = f" * {spec.shape[0]}" if isinstance(spec.shape[0], int) and spec.shape[0] > 1 else ""
    yield f"inputs = {{{_quoted(spec.name)}: np.stack([picture]{copies})}}"


def _zeros(inputs: Sequence[TensorSpec]) -> Iterator[str]:
    arrays = [f"{_quoted(s.name)}: np.zeros({_sizes(s)}, {_quoted(s.dtype)})" for s in inputs]
    yield f"inputs = {{{', '.join(arrays)}}}  # to be filled with your own"


def _sizes(spec: TensorSpec) -> tuple[int, ...]:
    """The shape, with 1 and 224 for a free batch and free sizes."""
    free = (1 if place == 0 else ANY_SIZE for place in range(len(spec.shape)))
    return tuple(
        own if isinstance(own, int) else any_ for own, any_ in zip(spec.shape, free, strict=True)
    )


def _quoted(text: str) -> str:
    """A string of Python, JavaScript and Swift."""
    return json.dumps(text, ensure_ascii=False)
