from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slide_deploy.coreml import FunctionCheck, check
from slide_deploy.errors import UnknownName
from tests.targets.mil.conftest import mb

Write = Callable[..., Path]
Q = np.zeros((1, 2, 3, 4), np.float32)


def attention(q: Any) -> Any:
    half = mb.cast(x=q, dtype="fp16")
    relu = mb.relu(x=half, name="half")
    wide = mb.cast(x=relu, dtype="fp32")
    return mb.softmax(x=mb.scaled_dot_product_attention(query=wide, key=q, value=q))


def checked(package: Path, target: str | None = None) -> FunctionCheck:
    [found] = check(package, target).functions
    return found


def test_each_system_is_told_what_it_lacks(write: Write) -> None:
    found = checked(write(attention, [Q], 8))
    assert found.violations == ()
    runs = {target.systems[0]: target.runs for target in found.targets}
    assert runs == {"iOS15": False, "iOS16": False, "iOS17": False, "iOS18": True, "iOS26": True}
    lacks = {
        "specification version 9": 1,
        "opset CoreML8": 1,
        "scaled_dot_product_attention": 1,
    }
    assert [dict(target.missing) for target in found.targets] == [lacks] * 3 + [{}] * 2


def test_an_argument_can_be_newer_than_its_operation(write: Write) -> None:
    def build(x: Any) -> Any:
        return mb.topk(x=x, k=1, axis=-1, sort=True, return_indices=True)[0]

    oldest, *_ = checked(write(build, [Q], 6)).targets
    assert oldest.missing["topk: argument sort"] == 1


def test_precision_is_counted_and_exceptions_are_named(write: Write) -> None:
    found = checked(write(attention, [Q], 8))
    assert found.precision["cast"] == {"float16": 1, "float32": 1}
    assert found.precision["relu"] == {"float16": 1}
    assert found.exceptions == ("cast cast_0 is float16", "relu half is float16")


@pytest.mark.parametrize(
    ("target", "broken"),
    [("iOS18", 0), ("macos15", 0), ("tvOS17", 1), ("iOS15", 1)],
)
def test_a_system_that_must_run_it_is_held_to_that(write: Write, target: str, broken: int) -> None:
    found = checked(write(attention, [Q], 8), target)
    assert len(found.violations) == broken
    if broken:
        assert f"{target} does not load the package; it needs {target[:-2]}18" in found.violations


def test_an_unknown_system_is_refused(write: Write) -> None:
    with pytest.raises(UnknownName, match="did you mean 'iOS17'"):
        check(write(attention, [Q], 8), "iOS17.0")


def test_what_cannot_be_computed_here_is_listed(write: Write, edit: Callable[..., Path]) -> None:
    def quantized(model: Any) -> None:
        main = model.mlProgram.functions["main"]
        [relu] = [
            operation
            for operation in main.block_specializations[main.opset].operations
            if operation.type == "relu"
        ]
        relu.type = "conv_quantized"

    found = checked(edit(write(lambda x: mb.relu(x=x), [Q], 6), quantized))
    assert (found.unsupported, found.violations) == ({"conv_quantized": 1}, ())
