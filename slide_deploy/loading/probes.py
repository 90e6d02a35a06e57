"""The probes that a model is asked: those that golden vectors hold, and fresh ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from slide_deploy.loading.dynamic_size import DynamicSize, sized
from slide_deploy.loading.loader import Model
from slide_deploy.parity.expectation import Expectation
from slide_deploy.parity.fresh_probes import fresh_probes
from slide_deploy.parity.probes import PIXELS, Probe, image_probes, make_probes
from slide_deploy.types import DynamicAxes, TensorSpec, with_batch

__all__ = ["drawn_probes", "is_judged", "recorded_probes"]

# A batch that is neither 1 nor what models are traced with.
OTHER_BATCH = 3

EXTREME = ("large", PIXELS)


def recorded_probes(
    model: Model,
    axes: DynamicAxes,
    images: tuple[np.ndarray, ...],
    size_of: Callable[[], DynamicSize],
) -> tuple[Probe, ...]:
    """The same at each export, and the user's own images."""
    batch = axes.batch if isinstance(axes.batch, int) else 1
    probes = make_probes(tuple(with_batch(spec, batch) for spec in model.artifact_inputs))

    def again(inputs: Iterable[TensorSpec], name: str, why: str) -> Probe:
        first = make_probes(tuple(inputs))[0]
        return replace(first, name=f"{first.name}, {name}", why=why)

    if not isinstance(axes.batch, int):
        others = (with_batch(spec, OTHER_BATCH) for spec in model.artifact_inputs)
        probes += (again(others, f"batch of {OTHER_BATCH}", "a free batch is really free"),)
    if axes.any_size:
        size = size_of().other
        others = (with_batch(sized(spec, size), batch) for spec in model.inputs)
        why = "free height and width are really free"
        probes += (again(others, "x".join(map(str, size)), why),)
    return (*probes, *image_probes(model.artifact_inputs, images, batch))


def drawn_probes(
    model: Model, axes: DynamicAxes, seed: int, size_of: Callable[[], DynamicSize]
) -> tuple[Probe, ...]:
    """Fresh ones, at the smallest and at a drawn height and width where these are free."""
    sizes = dict.fromkeys((size_of().smallest, size_of().drawn(seed))) if axes.any_size else ()
    resized = [[sized(spec, size) for spec in model.inputs] for size in sizes]
    return fresh_probes(model.artifact_inputs, axes.batch, seed, resized)


def is_judged(expected: Expectation) -> bool:
    """Whether a probe beyond the inputs that models are made for says something of an artifact.

    It does where the model itself does not overflow on it; raw pixels, where rounding leaves three
    digits of the outputs too.
    """
    if expected.probe not in EXTREME:
        return True
    finite = all(np.isfinite(noise.floor) for noise in expected.noise.values())
    return finite and (expected.probe != PIXELS or _has_three_digits(expected))


def _has_three_digits(expected: Expectation) -> bool:
    return all(
        noise.rms <= 1e-3 * float(np.sqrt(np.square(expected.references[name]).mean()))
        and (noise.scheme_snr_db is None or noise.scheme_snr_db > 20)
        for name, noise in expected.noise.items()
    )
