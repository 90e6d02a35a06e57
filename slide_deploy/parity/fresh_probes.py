"""Probes that nobody can know in advance: drawn from a new seed at each verification."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from slide_deploy.parity.probes import Probe, make_probe
from slide_deploy.types import TensorSpec, with_batch

__all__ = ["fresh_probes", "nan_probe", "new_seed"]

Specs = Sequence[TensorSpec]

# What a free batch is tried with, each with rows of the largest in another order: rows that
# depend on each other show. Beside these, 1 and 3 are always tried.
LARGEST_BATCH, SMALL_BATCH, DRAWN_BATCHES = 8, 2, (4, 5, 6, 7)


def fresh_probes(
    inputs: Specs, batch: int | str, seed: int, resized: Sequence[Specs] = ()
) -> tuple[Probe, ...]:
    """Probes of the kinds `normal` and `patchwork`; a name of its own for each.

    `inputs` are of batch 1, `batch` is that of the artifact or a name where it is free;
    `resized` are the inputs at other heights and widths, where these are free.
    """
    return tuple(_drawn(inputs, batch, seed, resized))


def _drawn(inputs: Specs, batch: int | str, seed: int, resized: Sequence[Specs]) -> Iterator[Probe]:
    own = batch if isinstance(batch, int) else 1
    yield _fresh(1, inputs, own, seed, "fresh patchwork")
    if isinstance(batch, int):
        yield _fresh(0, inputs, own, seed, "fresh normal")
    else:
        largest = _fresh(0, inputs, LARGEST_BATCH, seed, f"fresh normal, batch of {LARGEST_BATCH}")
        yield largest
        rng = np.random.default_rng((seed, LARGEST_BATCH))
        for size in (SMALL_BATCH, int(rng.choice(DRAWN_BATCHES))):
            rows = rng.permutation(LARGEST_BATCH)[:size]
            yield Probe(
                f"fresh normal, batch of {size}",
                f"rows of the batch of {LARGEST_BATCH} in another order: none depends on another",
                {name: value[rows] for name, value in largest.inputs.items()},
            )
    for specs in resized:
        (shown,) = {"x".join(map(str, spec.shape[2:])) for spec in specs if len(spec.shape) == 4}
        yield _fresh(0, specs, own, seed, f"fresh normal, {shown}")


def _fresh(kind: int, inputs: Specs, batch: int, seed: int, name: str) -> Probe:
    # The probes that everyone knows are those of seed 0.
    probe = make_probe(kind, tuple(with_batch(spec, batch) for spec in inputs), seed + 1)
    return replace(probe, name=name, why=f"unknown in advance; {probe.why}")


def new_seed() -> int:
    """A seed that nobody can know in advance."""
    return secrets.randbits(32)


def nan_probe(probe: Probe) -> Probe | None:
    """The probe with one NaN in the middle of each floating-point input; None without one."""
    inputs = {name: value.copy() for name, value in probe.inputs.items()}
    floats = [value for value in inputs.values() if value.dtype.kind == "f"]
    for value in floats:
        value.reshape(-1)[value.size // 2] = np.nan
    return Probe("one NaN", "NaN stays visible", inputs) if floats else None
