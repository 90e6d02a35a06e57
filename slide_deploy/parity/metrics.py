"""Error measures between an output and its float64 reference."""

from __future__ import annotations

import numpy as np

__all__ = [
    "max_abs_error",
    "noise_floor",
    "noise_rms",
    "rms_error",
    "rounded_snr_db",
    "snr_db",
]

SINGLE, TINY = (float(getattr(np.finfo(np.float32), name)) for name in ("eps", "tiny"))


def max_abs_error(output: np.ndarray, reference: np.ndarray) -> float:
    """max |output − reference|; infinite if the output is not finite."""
    difference = np.abs(output.astype(np.float64) - reference)
    return float(difference.max(initial=0.0)) if np.isfinite(difference).all() else float("inf")


def rms_error(output: np.ndarray, reference: np.ndarray) -> float:
    """Root mean square of output − reference; infinite if the output is not finite."""
    if not output.size:
        return 0.0
    power = float(np.square(output.astype(np.float64) - reference).mean())
    return float(np.sqrt(power)) if np.isfinite(power) else float("inf")


def noise_floor(rounded: np.ndarray, reference: np.ndarray, epsilon: float = SINGLE) -> float:
    """The rounding noise of a model in float32, max |y32 − y64|.

    It is at least one rounding of the output, because few outputs may be exact by chance;
    `epsilon` is the distance from 1 to the next number of its type.
    """
    return max(max_abs_error(rounded, reference), _one_rounding(reference, epsilon))


def noise_rms(rounded: np.ndarray, reference: np.ndarray, epsilon: float = SINGLE) -> float:
    """The root mean square of the noise, at least that of one rounding."""
    return max(rms_error(rounded, reference), _one_rounding(reference, epsilon) / 12**0.5)


def rounded_snr_db(reference: np.ndarray, epsilon: float) -> float:
    """The signal-to-noise ratio that rounding the output once leaves."""
    signal = rms_error(np.zeros_like(reference), reference)
    noise = _one_rounding(reference, epsilon) / 12**0.5
    return 20.0 * float(np.log10(max(signal, TINY) / noise))


def _one_rounding(reference: np.ndarray, epsilon: float) -> float:
    return max(epsilon * float(np.abs(reference).max(initial=0.0)), TINY)


def snr_db(output: np.ndarray, reference: np.ndarray) -> float:
    """10·log₁₀(‖reference‖² / ‖output − reference‖²) in decibels."""
    noise = float(np.square(output.astype(np.float64) - reference).sum())
    signal = float(np.square(reference).sum())
    if not np.isfinite(noise):
        return float("-inf")
    if noise == 0.0:
        return float("inf")
    return 10.0 * float(np.log10(max(signal, float(np.finfo(np.float64).tiny)) / noise))
