"""8-bit activations, and compressed sparse weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

from slide_deploy.validators._mil.ops import OPERATIONS, call

Run = Callable[..., list[np.ndarray]]
X = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
SCALES = np.array([0.01, 0.02, 0.04], np.float32)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_a_tensor_of_one_scale(run: Run, dtype: type) -> None:
    zero_point = dtype(7)

    def build(x: Any) -> Any:
        q = mb.quantize(input=x, scale=np.float32(0.02), zero_point=zero_point, output_dtype=name)
        return mb.dequantize(input=q, scale=np.float32(0.02), zero_point=zero_point)

    name = np.dtype(dtype).name
    (found,) = run(build, [X], 7)
    limits = np.iinfo(dtype)
    expected = torch.fake_quantize_per_tensor_affine(
        torch.from_numpy(X), 0.02, 7, limits.min, limits.max
    )
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize("axis", [1, -2])
def test_a_scale_to_a_channel(run: Run, axis: int) -> None:
    zeros = np.array([0, -3, 5], np.int8)

    def build(x: Any) -> Any:
        q = mb.quantize(input=x, scale=SCALES, zero_point=zeros, output_dtype="int8", axis=axis)
        return mb.dequantize(input=q, scale=SCALES, zero_point=zeros, axis=axis)

    (found,) = run(build, [X], 7)
    expected = torch.fake_quantize_per_channel_affine(
        torch.from_numpy(X), torch.from_numpy(SCALES), torch.from_numpy(zeros).int(), 1, -128, 127
    )
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6)


def test_float16_activations(run: Run) -> None:
    x = X.astype(np.float16)

    def build(x: Any) -> Any:
        q = mb.quantize(input=x, scale=np.float16(0.5), output_dtype="int8")
        return mb.dequantize(input=q, scale=np.float16(0.5))

    (found,) = run(build, [x], 7)
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, np.rint(x.astype(np.float32) * 2) / 2)


def test_a_value_that_is_not_a_number_has_no_8_bits() -> None:
    arguments = {
        "input": (np.array([np.nan], np.float32),),
        "scale": (np.float32(1),),
        "output_dtype": (np.array("int8"),),
    }
    with pytest.raises(ValueError, match="not a number"):
        call(OPERATIONS["quantize"], arguments, 7)


MASK = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1], [1, 1, 0, 0]], np.uint8)


def test_sparse_weights_with_scales(run: Run) -> None:
    values = np.array([10, 11, 3, 4, 5, 6, 7, 8, 9], np.int8)
    scale = np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)
    offset = np.array([[1, 2, 3, 4]], np.int8)

    def build(x: Any) -> Any:
        mask, data = mb.constexpr_sparse_blockwise_shift_scale(
            data_mask=MASK.astype(types.np_uint1_dtype),
            nonzero_data=values,
            scale=scale,
            offset=offset,
        )
        return mb.add(x=x, y=mb.constexpr_sparse_to_dense(nonzero_data=data, mask=mask))

    (found,) = run(build, [np.zeros((4, 4), np.float32)], 8)
    dense = np.zeros((4, 4), np.float32)
    dense[MASK == 1] = values
    np.testing.assert_allclose(found, MASK * (dense - offset) * scale, rtol=1e-6)


@pytest.mark.parametrize(
    ("palette", "axis"), [([[2.0], [3.0]], None), ([[2.0, 4.0], [3.0, 5.0]], 0)]
)
def test_sparse_palette_indices(run: Run, palette: list[list[float]], axis: int | None) -> None:
    """The example in the description of the operation, as scalars and as vectors."""
    mask = np.array(
        [[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 1], [0, 1, 1, 0, 1, 0], [0, 0, 0, 1, 0, 0]]
    )
    indices = np.array([0, 1, 1, 0, 1, 1, 0, 0, 1], np.uint8)
    lut = np.array(palette, np.float32)[None, None]
    rows = np.zeros((*mask.shape, lut.shape[-1]), np.float32)
    rows[mask == 1] = lut[0, 0, indices]
    dense = rows.transpose(0, 2, 1).reshape(-1, 6)

    def build(x: Any) -> Any:
        given = {} if axis is None else {"vector_axis": axis}
        out_mask, data = mb.constexpr_lut_to_sparse(
            indices_mask=mask.astype(types.np_uint1_dtype),
            indices_nonzero_data=indices.astype(types.np_uint1_dtype),
            lut=lut,
            **given,
        )
        return mb.add(x=x, y=mb.constexpr_sparse_to_dense(nonzero_data=data, mask=out_mask))

    (found,) = run(build, [np.zeros_like(dense)], 8)
    np.testing.assert_array_equal(found, dense)
