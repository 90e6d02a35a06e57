"""Error that recurs on perturbed copies of an input: rounding does not, a wrong weight does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from slide_deploy.parity.expectation import Expectation
from slide_deploy.parity.probes import source

__all__ = ["copies_by_source", "recurring_power", "systematic_ratios"]

CHANCE = 3.0  # standard deviations

# Runtimes may round a few operations in the same way for all copies, as a run of PyTorch may not.
SHARE = 0.5


def copies_by_source(names: Iterable[str]) -> dict[str, list[str]]:
    """A probe and its perturbed copies, by the name of that probe; only those that have copies."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(source(name), []).append(name)
    return {own: group for own, group in groups.items() if len(group) > 1}


def recurring_power(errors: Sequence[np.ndarray]) -> float:
    """Mean square of what the errors on a probe and its copies have in common.

    It is the mean product of two copies' errors, which averages out where they are independent;
    without a bias, so that it may be below 0. Infinite where an error is not finite.
    """
    flat = np.array([error.reshape(-1) for error in errors], dtype=np.float64)
    if not np.isfinite(flat).all():
        return float("inf")
    copies, values = flat.shape
    together = np.square(flat.sum(axis=0)).sum() - np.square(flat).sum()
    return float(together / (copies * (copies - 1) * values))


def systematic_ratios(
    expectations: tuple[Expectation, ...], outputs: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, float]:
    """Per output, the systematic error in multiples of the noise, both root mean square.

    The noise is what rounding may leave in it: half of a run's power, and what recurs of a run's
    own rounding. An output has a ratio where it has the expected shape on a probe and all copies.
    """
    by_name = {expectation.probe: expectation for expectation in expectations}
    ratios: dict[str, float] = {}
    for group in copies_by_source(by_name).values():
        copies = [by_name[probe] for probe in group]
        for name in copies[0].meant:
            made = [outputs[e.probe].get(name) for e in copies]
            aims = [e.meant[name] for e in copies]
            pairs = [(m, a) for m, a in zip(made, aims, strict=True) if m is not None]
            if len(pairs) < len(copies) or any(m.shape != a.shape for m, a in pairs):
                continue
            errors = [m - a for m, a in pairs]
            noise = SHARE * float(np.mean([e.noise[name].rms ** 2 for e in copies]))
            noise += copies[0].noise[name].systematic ** 2
            ratios[name] = max(ratios.get(name, 0.0), _ratio(errors, noise))
    return ratios


def _ratio(errors: Sequence[np.ndarray], noise: float) -> float:
    """Of the errors' common part, less what chance may have left in it, to the noise's power."""
    power = recurring_power(errors)
    if not np.isfinite(power):
        return float("inf")
    values, pairs = errors[0].size, len(errors) * (len(errors) - 1) / 2
    mean_square = float(np.mean([np.square(error).mean() for error in errors]))
    chance = CHANCE * mean_square / float(np.sqrt(pairs * values))
    return float(np.sqrt(max(power - chance, 0.0) / noise))
