"""Sound tensors of any scale pass; each kind of damage to a tensor is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slide_deploy.parity.quantization import is_folded, quantization_problem, rounding_problem
from slide_deploy.protocols import QuantizedTensor, RoundedTensor

SEEDS = st.integers(0, 2**32 - 1)


def weights_of(seed: int, *, scale: float = 1.0, axis: int = 0) -> QuantizedTensor:
    """Symmetric int8 weights per channel, some channels far larger than others."""
    rng = np.random.default_rng(seed)
    shape = (6, 4, 3, 3)
    spread = 10.0 ** rng.uniform(-2, 2, [6 if a == axis else 1 for a in range(4)])
    weights = (scale * spread * rng.standard_normal(shape)).astype(np.float32)
    others = tuple(a for a in range(4) if a != axis)
    step = np.abs(weights).max(axis=others, keepdims=True) / np.float32(127)
    integers = np.clip(np.round(weights / step), -127, 127).astype(np.int8)
    return QuantizedTensor(
        name="layer.weight",
        kind="int8",
        low=-128,
        high=127,
        scale=step.reshape(-1),
        zero_point=np.zeros(step.size, np.int8),
        axis=axis,
        integers=integers,
        weights=weights,
    )


def range_of(low: float, high: float, *, bits: int = 8) -> QuantizedTensor:
    """An activation quantized asymmetrically to unsigned integers."""
    wide = (min(low, 0.0), max(high, 0.0))
    scale = np.float32((wide[1] - wide[0]) / (2**bits - 1))
    zero = np.round(-wide[0] / scale)
    kind = np.dtype(f"uint{bits}")
    return QuantizedTensor(
        name="layer.input",
        kind=kind.name,
        low=0,
        high=2**bits - 1,
        scale=np.array(scale),
        zero_point=np.array(zero).astype(kind),
        observed=(low, high),
    )


@given(seed=SEEDS, exponent=st.floats(-12, 12))
def test_rounded_weights_of_any_scale_pass(seed: int, exponent: float) -> None:
    assert quantization_problem(weights_of(seed, scale=10.0**exponent)) == ""


@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-6, 1e6), bits=st.sampled_from([8, 16]))
@settings(max_examples=300)
def test_the_range_of_the_calibration_set_passes(low: float, width: float, bits: int) -> None:
    low, high = (float(np.float32(end)) for end in (low, low + width))
    assert quantization_problem(range_of(low, high, bits=bits)) == ""


def one_wrong(t: QuantizedTensor) -> QuantizedTensor:
    assert t.integers is not None
    integers = t.integers.copy()
    integers[2, 1, 0, 2] += 1 if integers[2, 1, 0, 2] < 100 else -1
    return replace(t, integers=integers)


def rounded_with_twice_the_scale(t: QuantizedTensor) -> QuantizedTensor:
    assert t.weights is not None
    step = 2 * t.scale.reshape(-1, 1, 1, 1)
    return replace(t, scale=2 * t.scale, integers=np.round(t.weights / step).astype(np.int8))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (one_wrong, "1 of 216 weights"),
        (lambda t: replace(t, scale=t.scale * np.float32(1.05)), "as its weights need"),
        (lambda t: replace(t, scale=t.scale / np.float32(1.05)), "not the nearest integers"),
        (lambda t: replace(t, zero_point=t.zero_point + np.int8(1)), "not the nearest integers"),
        (lambda t: replace(t, scale=t.scale[::-1]), "as its weights need"),
        (lambda t: replace(t, axis=1), "scales along axis 1"),
        (lambda t: replace(t, scale=-t.scale), "not a positive number"),
        (lambda t: replace(t, scale=t.scale * np.float32("nan")), "not a positive number"),
        (rounded_with_twice_the_scale, "2 times as large as its weights need"),
    ],
)
def test_damaged_weights_are_named(
    damage: Callable[[QuantizedTensor], QuantizedTensor], named: str
) -> None:
    problem = quantization_problem(damage(weights_of(0)))
    assert problem.startswith("layer.weight has ")
    assert named in problem


@given(low=st.floats(-3, 0), high=st.floats(0.1, 3), bits=st.sampled_from([8, 16]))
def test_a_zero_point_that_is_off_by_one_is_named(low: float, high: float, bits: int) -> None:
    sound = range_of(low, high, bits=bits)
    zero = int(sound.zero_point)
    off = replace(sound, zero_point=np.array(zero + (1 if zero == 0 else -1), sound.kind))
    # Half a step is what rounding takes: next to it, both integers are the nearest.
    exact = -min(low, 0.0) / float(sound.scale)
    if abs(abs(exact - zero) - 0.5) > 0.2:
        assert "steps off" in quantization_problem(off)


@given(
    ends=st.sampled_from([(0.0, 1.0), (-1.0, 0.0), (-1e-4, 1.0), (-2.0, 3.0)]),
    factor=st.sampled_from([0.5, 0.8, 0.95, 1.05, 2.0, 6.0]),
    bits=st.sampled_from([8, 16]),
)
def test_a_scale_that_is_off_is_named_also_where_an_end_is_zero(
    ends: tuple[float, float], factor: float, bits: int
) -> None:
    sound = range_of(*ends, bits=bits)
    off = replace(sound, scale=sound.scale * np.float32(factor))
    assert "steps off" in quantization_problem(off)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda t: {"scale": t.scale * np.float32(1.05)}, "steps off"),
        (lambda t: {"scale": t.scale * np.float32(0.5)}, "steps off"),
        (lambda t: {"observed": (-1.0, 4.0)}, "steps off"),
        (lambda t: {"observed": (-1.1, 2.9)}, "steps off"),
        (lambda t: {"scale": np.full(3, t.scale)}, "steps off"),
    ],
    ids=["scale", "clipped", "another set", "shifted", "per channel"],
)
def test_damaged_ranges_are_named(
    damage: Callable[[QuantizedTensor], dict[str, Any]], named: str, bits: int
) -> None:
    sound = range_of(-1.0, 3.0, bits=bits)
    assert named in quantization_problem(replace(sound, **damage(sound)))


def test_a_value_that_is_always_zero_has_any_scale() -> None:
    assert quantization_problem(replace(range_of(-1.0, 3.0), observed=(0.0, 0.0))) == ""


def test_the_scale_of_a_bias_is_that_of_the_product_it_is_added_to() -> None:
    bias = np.array([0.5, -0.25], np.float32)
    product = np.array([1e-3, 2e-3], np.float32)
    sound = QuantizedTensor(
        name="layer.bias",
        kind="int32",
        low=-(2**31),
        high=2**31 - 1,
        scale=product,
        zero_point=np.zeros(2, np.int32),
        integers=np.round(bias / product).astype(np.int32),
        weights=bias,
        product=product,
    )
    assert quantization_problem(sound) == ""
    coarse = 100 * product
    wrong = replace(sound, scale=coarse, integers=np.round(bias / coarse).astype(np.int32))
    assert "not that of its operator's input and weights" in quantization_problem(wrong)


def test_a_channel_far_below_the_others_may_have_a_larger_scale() -> None:
    """Its bias would not fit into 32 bits otherwise."""
    sound = weights_of(1)
    assert sound.weights is not None
    assert sound.integers is not None
    weights, integers, scale = sound.weights.copy(), sound.integers.copy(), sound.scale.copy()
    weights[3] *= 1e-6 * np.abs(weights).max() / np.abs(weights[3]).max()
    scale[3] = 1e3 * np.abs(weights[3]).max()
    integers[3] = 0
    changed = replace(sound, weights=weights, integers=integers, scale=scale)
    assert quantization_problem(changed) == ""


def palette_of(seed: int, scale: float = 1.0) -> QuantizedTensor:
    """Weights as the nearest of 256 values, after a few steps of k-means."""
    weights = scale * np.random.default_rng(seed).standard_normal(2000).astype(np.float32)
    palette = np.linspace(weights.min(), weights.max(), 256)
    for _ in range(3):
        chosen = np.abs(weights[:, None] - palette).argmin(axis=1)
        counts = np.bincount(chosen, minlength=256)
        means = np.bincount(chosen, weights, 256) / np.maximum(counts, 1)
        palette = np.where(counts > 0, means, palette)
    palette = palette.astype(np.float32)
    return QuantizedTensor(
        name="layer.weight",
        kind="palette",
        low=0,
        high=255,
        scale=np.ones(1),
        zero_point=np.zeros(1),
        integers=np.abs(weights[:, None] - palette).argmin(axis=1).astype(np.uint8),
        weights=weights,
        palette=palette,
    )


@given(seed=SEEDS, exponent=st.integers(-3, 3))
def test_the_nearest_values_of_a_palette_pass(seed: int, exponent: int) -> None:
    assert quantization_problem(palette_of(seed, 10.0**exponent)) == ""


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda t: {"integers": np.roll(t.integers, 1)}, "not the nearest values"),
        (lambda t: {"palette": t.palette[::-1]}, "not the nearest values"),
        (lambda t: {"palette": 1.05 * t.palette}, "nearest values"),
        (lambda t: {"palette": np.where(t.palette > 2, np.nan, t.palette)}, "not a number"),
        (
            lambda t: {
                "palette": t.palette[::32].repeat(32),
                "integers": np.abs(t.weights[:, None] - t.palette[::32]).argmin(1).astype("u1")
                * 32,
            },
            "coarser|beside",
        ),
    ],
)
def test_damage_to_a_palette_is_named(damage: Callable[[Any], Any], named: str) -> None:
    found = quantization_problem(replace(palette_of(0), **damage(palette_of(0))))
    assert any(part in found for part in named.split("|")), found


def rounded(stored: list[float], weights: list[float]) -> RoundedTensor:
    return RoundedTensor("w", np.array(stored, np.float16), np.array(weights, np.float32))


def test_a_rounded_constant_is_the_nearest_number_of_its_type() -> None:
    weights = [0.1, -3e-8, 1e5, 1 + 2.0**-11]  # rounded, subnormal, overflow, a tie to even
    with np.errstate(over="ignore"):
        stored = np.array(weights, np.float16)
    assert rounding_problem(rounded(stored.tolist(), weights)) == ""
    stored[0] = np.nextafter(stored[0], np.float16(1))
    assert "w has 1 of 4 numbers" in rounding_problem(rounded(stored.tolist(), weights))


def test_a_constant_that_stays_float32_is_equal() -> None:
    weights = np.array([0.1, 0.2], np.float32)
    assert rounding_problem(RoundedTensor("w", weights, weights)) == ""
    assert "1 of 2" in rounding_problem(RoundedTensor("w", weights + np.array([0, 1e-6]), weights))


def test_a_constant_of_another_shape_is_wrong() -> None:
    assert "shape (2,), not (1,)" in rounding_problem(rounded([1, 2], [1]))


def test_what_a_converter_folds_in_float16_is_close_and_the_same_again() -> None:
    weights = [1.0, 0.3, 0.0004]
    folded = rounded([1.0, 0.3, 0.0008], weights)  # a sum that nearly cancels
    assert is_folded(folded, folded)
    assert not is_folded(folded, rounded([1.0, 0.3, 0.0004], weights))
    far = rounded([1.0, 0.31, 0.0004], weights)
    assert not is_folded(far, far)


def test_a_scale_may_be_zero_for_weights_of_zero_alone() -> None:
    tensor = weights_of(0)
    assert tensor.weights is not None
    dead = tensor.weights.copy()
    dead[2] = 0
    scale = np.where(np.arange(6) == 2, 0, tensor.scale)
    assert tensor.integers is not None
    integers = np.where(dead == 0, 0, tensor.integers)
    assert quantization_problem(replace(tensor, weights=dead, scale=scale, integers=integers)) == ""
    assert "scale of zero for weights" in quantization_problem(replace(tensor, scale=scale))
    flat = replace(range_of(0, 1), scale=np.array(0, np.float32))
    assert "scale of zero for values" in quantization_problem(flat)


@given(size=st.floats(1e-2, 6e4))
def test_a_symmetric_range_with_a_scale_in_float16(size: float) -> None:
    tensor = replace(
        range_of(-size, 0.5 * size),
        kind="int8",
        low=-128,
        high=127,
        scale=np.array(size / 127, np.float16),
        zero_point=np.zeros((), np.int8),
    )
    assert quantization_problem(tensor) == ""
    for factor in (0.99, 1.01):
        wrong = replace(tensor, scale=np.array(factor * size / 127, np.float16))
        assert "steps off" in quantization_problem(wrong)
    assert "steps off" in quantization_problem(replace(tensor, zero_point=np.ones((), np.int8)))


@given(seed=SEEDS)
def test_the_largest_weight_one_step_too_small_is_noticed(seed: int) -> None:
    """Also where the rounding of the scale puts it beyond the last integer."""
    tensor = weights_of(seed)
    assert tensor.integers is not None
    integers, scale = tensor.integers.copy(), tensor.scale * np.float32(1 - 1e-7)
    integers[integers == 127] = 126
    wrong = replace(tensor, integers=integers, scale=scale)
    assert ("nearest integers" in quantization_problem(wrong)) is bool(
        (tensor.integers == 127).any()
    )
