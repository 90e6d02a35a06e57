"""Decompression of weights, which Core ML does when it loads the model."""

from __future__ import annotations

from math import prod

import numpy as np

from slide_deploy.validators._mil.dtypes import DTYPES, Array, unpack
from slide_deploy.validators._mil.ops.registry import Ints, operation

__all__ = [
    "constexpr_affine_dequantize",
    "constexpr_blockwise_shift_scale",
    "constexpr_cast",
    "constexpr_lut_to_dense",
    "constexpr_lut_to_sparse",
    "constexpr_sparse_blockwise_shift_scale",
    "constexpr_sparse_to_dense",
]


@operation("constexpr_cast", widens=False)
def constexpr_cast(source_val: Array, output_dtype: str) -> Array:
    """float16 weights as float32."""
    if source_val.dtype != np.float16 or output_dtype != "fp32":
        raise ValueError(f"from {source_val.dtype} to {output_dtype!r}")
    return source_val.astype(np.float32)


@operation("constexpr_affine_dequantize", widens=False)
def constexpr_affine_dequantize(
    quantized_data: Array, zero_point: Array, scale: Array, axis: int
) -> Array:
    """scale (q - zero_point), with scalars or one of each per slice along an axis."""
    axis %= quantized_data.ndim
    shape = [-1 if a == axis else 1 for a in range(quantized_data.ndim)]
    return _dequantized(
        quantized_data,
        *(p.reshape(shape if p.ndim else [1] * len(shape)) for p in (scale, zero_point)),
    )


@operation("constexpr_blockwise_shift_scale", widens=False)
def constexpr_blockwise_shift_scale(
    data: Array, scale: Array, offset: Array | None = None
) -> Array:
    """scale (data - offset), with one of each per block of data."""
    if offset is not None and offset.shape != scale.shape:
        raise ValueError(f"offset {offset.shape} and scale {scale.shape}")
    zero = np.zeros((1,) * data.ndim, np.int32) if offset is None else _spread(offset, data.shape)
    return _dequantized(data, _spread(scale, data.shape), zero)


@operation("constexpr_lut_to_dense", widens=False)
def constexpr_lut_to_dense(
    indices: Array, lut: Array, shape: Ints | None = None, vector_axis: int | None = None
) -> Array:
    """Palette indices as values: packed bits with a `shape` (CoreML6), else a tensor of indices."""
    if shape is not None:
        bits = lut.size.bit_length() - 1
        if lut.ndim != 1 or vector_axis is not None or lut.size != 1 << bits:
            raise ValueError(f"a palette of shape {lut.shape}")
        packed = unpack(indices.tobytes(), DTYPES[f"uint{bits}"], prod(shape))
        return lut[packed].reshape(shape)
    if lut.ndim != indices.ndim + 2:
        raise ValueError(f"a palette of shape {lut.shape} for indices {indices.shape}")
    palettes = _spread(lut, (*indices.shape, *lut.shape[-2:]))
    vectors = np.take_along_axis(palettes, indices[..., None, None].astype(np.intp), -2)[..., 0, :]
    if vectors.shape[-1] == 1:
        return vectors[..., 0]
    if vector_axis is None:
        raise ValueError("a palette of vectors without a vector_axis")
    axis = vector_axis % indices.ndim
    dense = list(indices.shape)
    dense[axis] *= vectors.shape[-1]
    return np.moveaxis(vectors, -1, axis + 1).reshape(dense)


@operation("constexpr_sparse_to_dense", widens=False)
def constexpr_sparse_to_dense(nonzero_data: Array, mask: Array, shape: Ints | None = None) -> Array:
    """Values where the mask is set: packed bits with a `shape` (CoreML6), else a tensor."""
    if shape is not None:
        mask = unpack(mask.tobytes(), DTYPES["uint1"], prod(shape)).reshape(shape)
    if np.count_nonzero(mask) != nonzero_data.size:
        raise ValueError(f"{nonzero_data.size} values for {np.count_nonzero(mask)} places")
    result = np.zeros(mask.shape, nonzero_data.dtype)
    result[mask != 0] = nonzero_data
    return result


@operation("constexpr_lut_to_sparse", widens=False)
def constexpr_lut_to_sparse(
    indices_mask: Array,
    indices_nonzero_data: Array,
    lut: Array,
    vector_axis: int | None = None,
) -> tuple[Array, Array]:
    """Mask and values of palette indices where a mask is set; both row by row."""
    indices = constexpr_sparse_to_dense(indices_nonzero_data, indices_mask)
    dense = constexpr_lut_to_dense(indices, lut, vector_axis=vector_axis)
    mask = indices_mask
    if vector_axis is not None:
        mask = mask.repeat(lut.shape[-1], vector_axis)
    return mask, dense[mask != 0]


@operation("constexpr_sparse_blockwise_shift_scale", widens=False)
def constexpr_sparse_blockwise_shift_scale(
    data_mask: Array, nonzero_data: Array, scale: Array, offset: Array | None = None
) -> tuple[Array, Array]:
    """The mask, and scale (data - offset) of the values where it is set."""
    data = constexpr_sparse_to_dense(nonzero_data, data_mask)
    return data_mask, constexpr_blockwise_shift_scale(data, scale, offset)[data_mask != 0]


def _dequantized(data: Array, scale: Array, zero_point: Array) -> Array:
    """Computed in float32, in which differences of small integers are exact, and rounded once."""
    shifted = data.astype(np.float32) - zero_point.astype(np.float32)
    return (scale.astype(np.float32) * shifted).astype(scale.dtype)


def _spread(blocks: Array, shape: tuple[int, ...]) -> Array:
    """One value per block, repeated over the block."""
    if blocks.ndim != len(shape) or any(n % b for n, b in zip(shape, blocks.shape, strict=True)):
        raise ValueError(f"{blocks.shape} blocks in {shape}")
    for axis, (size, count) in enumerate(zip(shape, blocks.shape, strict=True)):
        if count not in (1, size):
            blocks = blocks.repeat(size // count, axis)
    return np.broadcast_to(blocks, shape)
