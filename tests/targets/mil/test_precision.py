"""After each operation, the result is rounded to its declared type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb

from slide_deploy.errors import ArtifactError
from slide_deploy.validators import coreml
from slide_deploy.validators._mil import evaluate, read_package

Run = Callable[..., list[np.ndarray]]


def test_float16_is_rounded_after_each_operation(run: Run) -> None:
    # 2049 is no float16: 2048 + 1 falls back to 2048, and so does the second sum.
    x = np.array([2048, 3], np.float16)

    def build(x: Any) -> Any:
        return mb.add(x=mb.add(x=x, y=np.float16(1)), y=np.float16(1))

    (half,) = run(build, [x], 6)
    assert half.dtype == np.float16
    assert half.tolist() == [2048, 5]
    (single,) = run(lambda x: mb.add(x=mb.add(x=x, y=1.0), y=1.0), [x.astype(np.float32)])
    assert single.tolist() == [2050, 5]


def test_one_operation_accumulates_in_float32_and_rounds_once(run: Run) -> None:
    x = np.array([[2048, 1, 1, 1]], np.float16)
    (total,) = run(lambda x: mb.reduce_sum(x=x, axes=[1]), [x], 6)
    assert (total.dtype, total.tolist()) == (np.float16, [2052])  # 2051, to even


def test_float16_overflows_to_infinity(run: Run) -> None:
    x = np.array([60000, 300], np.float16)
    (twice,) = run(lambda x: mb.mul(x=x, y=np.float16(2)), [x], 6)
    assert twice.tolist() == [np.inf, 600]


def test_float16_weights_and_values_match_numpy(run: Run) -> None:
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s).astype(np.float16) for s in ((3, 16), (8, 16)))
    (found,) = run(
        lambda x: mb.gelu(x=mb.linear(x=x, weight=w), mode="SIGMOID_APPROXIMATION"), [x], 6
    )
    product = (x.astype(np.float32) @ w.T.astype(np.float32)).astype(np.float16)
    wide = product.astype(np.float32)
    expected = (wide / (1 + np.exp(-1.702 * wide))).astype(np.float16)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_a_program_may_mix_precisions_by_casting(run: Run) -> None:
    x = np.array([1 + 2**-12], np.float32)

    def build(x: Any) -> Any:
        return mb.cast(x=mb.cast(x=x, dtype="fp16"), dtype="fp32")

    (found,) = run(build, [x], 6)
    assert (found.dtype, found.tolist()) == (np.float32, [1.0])


def test_operations_of_another_type_than_most_are_named(write: Callable[..., Path]) -> None:
    x = np.ones((2, 3), np.float32)

    def build(x: Any) -> Any:
        half = mb.relu(x=mb.cast(x=x, dtype="fp16"), name="half")
        wide = mb.exp(x=mb.cast(x=half, dtype="fp32"), name="wide")
        return mb.cast(x=mb.tanh(x=mb.cast(x=wide, dtype="fp16")), dtype="fp32", name="out")

    session = coreml.open_session(write(build, [x], 6))
    assert session.compute_type == "float16"
    assert [name for name in session.other_precision if "cast" not in name] == ["mil::exp wide"]
    assert "mil::cast out" not in session.other_precision  # outputs are float32 as asked


def test_mixed_operands_need_coreml7(write: Callable[..., Path], edit: Callable[..., Path]) -> None:
    x, w = np.ones((1, 3, 4, 4), np.float16), np.ones((2, 3, 1, 1), np.float32)
    path = write(lambda x: mb.conv(x=x, weight=w), [x], 7)
    assert evaluate(read_package(path), {"x": x})["conv_0"].dtype == np.float16

    def older(model: Any) -> None:
        main = model.mlProgram.functions["main"]
        main.block_specializations["CoreML6"].CopyFrom(main.block_specializations["CoreML7"])
        main.opset = "CoreML6"

    with pytest.raises(ArtifactError, match="tensors of types float16, float32"):
        evaluate(read_package(edit(path, older)), {"x": x})
