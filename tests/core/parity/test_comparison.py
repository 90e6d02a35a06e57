"""Comparisons: outputs that pass and outputs that fail."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slide_deploy.parity.comparison import (
    NOISE_MULTIPLE,
    Comparison,
    Tolerance,
    compare,
    constant_outputs,
    disagreements,
    gate_results,
    relative_errors,
)
from slide_deploy.parity.expectation import Expectation, Noise, with_operator_errors
from slide_deploy.parity.gates import GateKind
from slide_deploy.quantization.catalog import scheme_named
from slide_deploy.types import Precision

NOISE = 1e-6
FLOAT32 = scheme_named("float32").gates
REFERENCE = np.array([[0.5, -2.0, 1.0]])


def expecting(reference: np.ndarray = REFERENCE, probe: str = "p", **noise: Any) -> Expectation:
    figures = Noise(
        **{"floor": NOISE, "rms": NOISE / 3, "scheme_error": 1e-3, "scheme_snr_db": 60.0, **noise}
    )
    return Expectation(probe, "why", {}, {"y": reference}, {"y": figures})


def judge(
    output: np.ndarray | None, precision: Precision = Precision.FLOAT32, **noise: Any
) -> Comparison:
    outputs = {} if output is None else {"y": output}
    (found,) = compare(expecting(**noise), outputs, scheme_named(precision).gates)
    return found


def judge_loss(output: np.ndarray, **noise: Any) -> Comparison:
    """By its loss of signal-to-noise ratio alone."""
    gates = [g for g in scheme_named("float16").gates if g.kind is GateKind.SNR_LOSS]
    (found,) = compare(expecting(**noise), {"y": output}, gates)
    return found


def off_by(error: float) -> np.ndarray:
    output = REFERENCE.astype(np.float32)
    output[0, 1] += np.float32(error)
    return output


def test_the_multiple_is_the_one_that_was_promised() -> None:
    assert NOISE_MULTIPLE == 10.0


@given(share=st.floats(-0.9, 0.9))
def test_within_ten_times_the_noise_passes(share: float) -> None:
    assert judge(off_by(share * 10 * NOISE)).passed


@given(share=st.floats(1.2, 1e6), sign=st.sampled_from([-1, 1]))
def test_beyond_ten_times_the_noise_fails(share: float, sign: int) -> None:
    assert "times the rounding noise" in judge(off_by(sign * share * 10 * NOISE)).problem


@given(decibels=st.floats(10, 90))
def test_float16_is_judged_by_its_noise_power(decibels: float) -> None:
    noise = np.linalg.norm(REFERENCE) * 10 ** (-decibels / 20)
    found = judge_loss(off_by(noise), scheme_snr_db=60.0)
    assert found.snr_db == pytest.approx(decibels, abs=1)
    if abs(decibels - 50) > 1:
        assert found.passed is (decibels > 50)


def test_the_figures_of_a_comparison() -> None:
    found = judge(off_by(3 * NOISE))
    assert found.max_abs_error == pytest.approx(3 * NOISE, rel=0.1)
    assert found.noise_ratio == pytest.approx(found.max_abs_error / NOISE)
    assert found.noise_floor == NOISE


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize(
    ("output", "words"),
    [
        (None, "missing"),
        (REFERENCE[0].astype(np.float32), "shape"),
        (REFERENCE.astype(np.float64), "dtype"),
        (REFERENCE.astype(np.float16), "dtype"),
        (np.full((1, 3), np.nan, np.float32), "NaN or infinite"),
        (np.array([[0.5, -2.0, np.inf]], np.float32), "NaN or infinite"),
        (np.empty((1, 0), np.float32), "empty"),
    ],
    ids=["missing", "shape", "float64", "float16", "nan", "infinite", "empty"],
)
def test_what_is_no_answer_fails(
    output: np.ndarray | None, words: str, precision: Precision
) -> None:
    assert words in judge(output, precision).problem


def test_infinite_noise_is_no_gate() -> None:
    assert not judge(off_by(1.0), floor=math.inf).passed


@pytest.mark.parametrize("half", [-math.inf, math.nan])
def test_a_float16_reference_that_overflows_is_no_gate(half: float) -> None:
    assert not judge(off_by(1.0), Precision.FLOAT16, scheme_snr_db=half).passed


def test_nan_noise_is_no_gate() -> None:
    assert not judge(off_by(1.0), floor=math.nan).passed


def test_a_reference_that_is_no_number_fails() -> None:
    reference = np.array([[math.nan, 1.0, 2.0]])
    (found,) = compare(expecting(reference), {"y": REFERENCE.astype(np.float32)}, FLOAT32)
    assert not found.passed


def test_without_a_float16_expectation_float16_fails() -> None:
    found = judge(off_by(0.0), Precision.FLOAT16, scheme_error=None, scheme_snr_db=None)
    assert "no expectation at this precision" in found.problem


@pytest.mark.parametrize(
    ("tolerance", "passes"),
    [
        (Tolerance(atol=1e-2), True),
        (Tolerance(atol=1e-4), False),
        (Tolerance(rtol=1e-2), True),
        (Tolerance(rtol=1e-4), False),
        (Tolerance(), False),
    ],
    ids=str,
)
def test_a_users_tolerance_replaces_the_gate(tolerance: Tolerance, passes: bool) -> None:
    (found,) = compare(expecting(), {"y": off_by(1e-3)}, FLOAT32, tolerance)
    assert found.passed is passes


@pytest.mark.parametrize("tolerance", [Tolerance(atol=math.inf), Tolerance(rtol=math.nan)], ids=str)
def test_a_tolerance_that_is_no_number_lets_nothing_pass(tolerance: Tolerance) -> None:
    (found,) = compare(expecting(), {"y": off_by(1e3)}, FLOAT32, tolerance)
    assert not found.passed


def test_another_top_class_fails_where_it_is_clear() -> None:
    output = np.array([[1.2, -2.0, 0.9]], np.float32)
    (found,) = compare(expecting(), {"y": output}, FLOAT32, Tolerance(atol=1.0))
    assert "top-1 differs" in found.problem


def test_a_near_tie_decides_nothing() -> None:
    reference = np.array([[1.0, 1.0 + NOISE, 0.0]])
    output = np.array([[1.0 + 2 * NOISE, 1.0, 0.0]], np.float32)
    (found,) = compare(expecting(reference), {"y": output}, FLOAT32)
    assert (found.passed, found.near_ties, found.top1_decided) == (True, 1, 0)


def test_an_output_that_never_changes_is_found() -> None:
    expected = (expecting(probe="a"), expecting(REFERENCE + 1, probe="b"))
    same = REFERENCE.astype(np.float32)
    assert list(constant_outputs(expected, {"a": {"y": same}, "b": {"y": same}})) == ["y"]
    assert list(constant_outputs(expected, {"a": {"y": same}, "b": {"y": same + 1}})) == []


OVER_PROBES = {GateKind.POOLED_ERROR: {"y": 5.5}, GateKind.SYSTEMATIC_ERROR: {"y": 0.4}}


def test_a_gate_tells_its_worst_figure_and_where_it_was() -> None:
    expected = (expecting(probe="a"), expecting(probe="b"))
    made = {"a": off_by(2 * NOISE), "b": off_by(-5 * NOISE)}
    comparisons = [c for e in expected for c in compare(e, {"y": made[e.probe]}, FLOAT32)]
    largest, pooled, systematic = gate_results(FLOAT32, comparisons, OVER_PROBES)
    assert (largest.probe, largest.output, largest.unit, largest.limit) == ("b", "y", "× noise", 10)
    assert largest.measured == pytest.approx(5, rel=0.1)
    assert (pooled.measured, pooled.passed, pooled.probe) == (5.5, False, "")
    assert (systematic.measured, systematic.passed) == (0.4, True)


def test_a_gate_with_nothing_to_measure_has_no_result() -> None:
    comparisons = compare(expecting(), {"y": off_by(0.0)}, FLOAT32)
    assert [r.kind for r in gate_results(FLOAT32, comparisons, {})] == ["max_error"]


@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.FLOAT16])
@pytest.mark.parametrize(
    "output",
    [None, REFERENCE, np.full((1, 3), np.nan, np.float32)],
    ids=["missing", "dtype", "nan"],
)
def test_an_output_that_is_no_answer_is_beyond_every_gate(
    output: np.ndarray | None, precision: Precision
) -> None:
    gates = scheme_named(precision).gates[:1]
    (result,) = gate_results(gates, [judge(output, precision)], {})
    assert (result.measured, result.passed) == (math.inf, False)


def test_the_cost_is_the_pooled_error_and_the_share_of_other_classes() -> None:
    gates = scheme_named("w8a8").gates
    expected = tuple(expecting(probe=str(number)) for number in range(4))
    swapped = REFERENCE[:, ::-1].astype(np.float32)
    made = {e.probe: {"y": off_by(0.0)} for e in expected} | {"3": {"y": swapped}}
    comparisons = [c for e in expected for c in compare(e, made[e.probe], gates)]
    assert all(c.passed for c in comparisons)
    figures = {
        GateKind.RELATIVE_ERROR: relative_errors(expected, made),
        GateKind.DISAGREEMENT: disagreements(comparisons),
    }
    error, disagreement = gate_results(gates, comparisons, figures)
    norm = np.linalg.norm(REFERENCE)
    lost = np.linalg.norm(swapped - REFERENCE)
    assert error.measured == pytest.approx(100 * lost / norm / 2, rel=1e-3)
    assert (disagreement.measured, disagreement.passed) == (25.0, False)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_the_relative_error_does_not_depend_on_the_scale(scale: float) -> None:
    reference = scale * np.array([[1.0, -2.0, 0.0]])
    noise = Noise(1e-6 * scale, 1e-7 * scale)
    expected = (Expectation("p", "", {}, {"y": reference}, {"y": noise}),)
    made = {"p": {"y": (1.1 * reference).astype(np.float32)}}
    assert relative_errors(expected, made) == {"y": pytest.approx(10, rel=1e-5)}


def test_a_float16_figure_is_the_loss_in_decibels() -> None:
    noise = np.linalg.norm(REFERENCE) * 10 ** (-55 / 20)
    found = judge_loss(off_by(noise))
    assert found.measured == {"snr_loss": pytest.approx(5, abs=1)}


def test_a_tolerance_is_a_gate() -> None:
    tolerance = Tolerance(atol=1e-4)
    found = compare(expecting(), {"y": off_by(1e-3)}, FLOAT32, tolerance)
    (result,) = gate_results([tolerance.gate], found, {})
    assert result.measured == pytest.approx(9e-4, rel=0.01)
    assert (result.passed, result.limit, result.basis) == (False, 0, str(tolerance))


def test_float16_is_judged_around_the_model_with_float16_weights() -> None:
    """What rounding the weights does is no error; the same deviation from there is one."""
    meant = REFERENCE + 1e-3
    noise = Noise(NOISE, NOISE / 3, scheme_error=1e-3, scheme_snr_db=60.0)
    expected = Expectation("p", "", {}, {"y": REFERENCE}, {"y": noise}, {"y": meant})
    gates = scheme_named("float16").gates
    (good,) = compare(expected, {"y": meant.astype(np.float32)}, gates)
    (bad,) = compare(expected, {"y": REFERENCE.astype(np.float32)}, gates)
    assert good.passed
    assert good.max_abs_error == pytest.approx(1e-3, rel=0.01)
    assert "times the rounding noise" in bad.problem


def test_an_output_that_rounding_alone_moves_is_not_called_constant() -> None:
    expected = (expecting(probe="a"), expecting(REFERENCE + NOISE / 10, probe="b"))
    same = REFERENCE.astype(np.float32)
    assert list(constant_outputs(expected, {"a": {"y": same}, "b": {"y": same}})) == []


def test_a_runtime_is_given_the_error_of_its_own_functions() -> None:
    expected = (expecting(operators={"sigmoid": (2.0, 1.0), "erf": (5.0, 3.0)}),)
    (found,) = with_operator_errors(expected, {"sigmoid": 1e-4})
    noise = found.noise["y"]
    assert noise.floor == pytest.approx(NOISE + 2e-4)
    assert noise.rms == pytest.approx(1e-4, rel=1e-3)
    assert with_operator_errors(expected, {}) == expected
