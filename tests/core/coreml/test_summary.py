from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from coremltools.converters.mil.mil import get_new_symbol

from slide_deploy.coreml import ValueSummary, read, summarize
from slide_deploy.errors import ArtifactError
from tests.targets.mil.conftest import ct, mb

PACKAGE = Path(__file__).parents[2] / "fixtures" / "written-before" / "module.mlpackage"


def test_a_package_is_summarized() -> None:
    found = summarize(PACKAGE)
    size = sum(path.stat().st_size for path in PACKAGE.rglob("*") if path.is_file())
    assert (found.path, found.size_bytes) == ("module.mlpackage", size)
    assert found.deployment_target == "iOS16, macOS13, watchOS9, tvOS16"
    assert found.specification_version == 7
    [function] = found.functions
    assert (function.name, function.default, function.opset) == ("main", True, "CoreML6")
    image, output = function.values
    assert (image.role, image.type, output.role) == ("input", "float32", "output")
    assert image.shape == tuple(map(str, read(PACKAGE).inputs[0].shape or ()))
    assert function.operations["conv"] > 0


@dataclass(frozen=True)
class Flexible:
    """Stands for an input whose dimensions are unknown to the program."""

    shape: tuple[Any, ...]
    dtype: str = "float32"


def test_free_dimensions_are_shown_as_ranges(write: Callable[..., Path]) -> None:
    shape = (ct.RangeDim(1, 64, default=2), ct.RangeDim(3, 9, default=3), 4)
    described = [ct.TensorType(name="x", shape=shape)]
    unknown = Flexible((get_new_symbol(), get_new_symbol(), 4))
    [function] = summarize(write(lambda x: mb.relu(x=x), [unknown], 6, described)).functions
    assert function.values[0] == ValueSummary("x", "input", "float32", ("1..64", "3..9", "4"))


def test_all_functions_are_shown(tmp_path: Path, edit: Callable[..., Path]) -> None:
    def double(model: Any) -> None:
        functions, described = model.mlProgram.functions, model.description
        functions["second"].CopyFrom(functions["main"])
        for name in functions:
            described.functions.add(name=name, input=described.input, output=described.output)
        described.defaultFunctionName = "second"

    found = summarize(edit(shutil.copytree(PACKAGE, tmp_path / "both.mlpackage"), double))
    assert {f.name: f.default for f in found.functions} == {"main": False, "second": True}


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"is not a \.mlpackage"):
        summarize(tmp_path)
