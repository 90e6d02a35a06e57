"""What the unfused PyTorch model says: float64 references, and its rounding noise."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import nn

from slide_deploy.parity.expectation import Expectation
from slide_deploy.parity.probes import Probe, source
from slide_deploy.parity.systematic import copies_by_source
from slide_deploy.quantization.catalog import scheme_named
from slide_deploy.reference.noise import (
    FEW_VALUES,
    Outputs,
    Runs,
    expectation_of,
    with_noise_of,
    with_systematic_noise,
)
from slide_deploy.reference.rounding import (
    APPROXIMATED_FUNCTIONS,
    OperatorErrors,
    RandomRounding,
    with_rounded_weights,
)
from slide_deploy.reference.run import run_module
from slide_deploy.types import Precision, TensorSpec

__all__ = ["expectations"]

Prepare = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
Conclude = Prepare

# Rounding errors that the noise floor of an output is the largest of: its values, times the runs.
# An error of ten times the largest of three draws of one normal distribution is met on one probe in
# 1200, of twelve on none. A few values need more runs; most outputs have more values than this.
DRAWS = 12

# Models whose weights are each rounded once more, as converters do that fold constants.
ROUNDED_MODELS = 2


def expectations(
    module: nn.Module,
    outputs: tuple[TensorSpec, ...],
    probes: tuple[Probe, ...],
    *,
    precision: str = Precision.FLOAT32,
    equals: Sequence[nn.Module] = (),
    on_probe: Callable[[str], None] = lambda name: None,
    prepare: Prepare = lambda inputs: inputs,
    conclude: Conclude = lambda outputs: outputs,
) -> tuple[Expectation, ...]:
    """Run `module` on every probe in float64, and measure what rounding does to it.

    `module` is the training form in float32; `outputs` name what it returns, in order. `equals`
    are modules that compute the same function in another order: their rounding is noise too.
    `prepare` computes the module's inputs from those of an artifact that contains the
    preprocessing, `conclude` what is compared with the outputs of one that contains the softmax
    from the module's. Raises UnknownName where there is no such precision scheme.
    """
    scheme = scheme_named(precision)
    alike = [module, *equals]
    exact = copy.deepcopy(module).double()
    meant = scheme.rounded(alike[-1]) if scheme.rounded else None
    noisy = [scheme.render(one) if scheme.render else one for one in alike]
    seeds = range(0 if scheme.render else ROUNDED_MODELS)
    folded = [with_rounded_weights(module, seed) for seed in seeds]
    sources = copies_by_source(probe.name for probe in probes)
    randomly = RandomRounding(seed=0)
    errors = [OperatorErrors(function) for function in APPROXIMATED_FUNCTIONS]

    def runs(probe: Probe) -> Runs:
        def run(own: nn.Module) -> Outputs:
            return conclude(run_module(own, outputs, prepare(probe.inputs)))

        references, plain = run(exact), [run(one) for one in noisy]
        borrows = _borrows(probe, references)
        if not scheme.render and not borrows:
            with randomly:
                plain += [run(module) for _ in range(_draws_left(references, len(plain)))]
        approximated = {}
        for error in list(errors) if not borrows else ():
            with error:
                approximated[error.function] = run(noisy[0])
            if not error.met:  # nor will it be on other probes
                errors.remove(error)
                del approximated[error.function]
        return Runs(
            references=references,
            meant=run(meant) if meant else references,
            noisy=plain,
            folded=[run(own) for own in folded] if probe.name in sources else [],
            approximated=approximated,
        )

    found = {}
    for probe in probes:
        on_probe(probe.name)
        found[probe.name] = runs(probe)
    expected = [expectation_of(probe, found[probe.name], scheme) for probe in probes]
    return with_systematic_noise(_shared(expected, probes), found, sources)


def _shared(expected: Sequence[Expectation], probes: Sequence[Probe]) -> list[Expectation]:
    """The expectations, of which perturbed copies borrow noise."""
    own = {expectation.probe: expectation for expectation in expected}
    return [
        with_noise_of(e, own[source(e.probe)]) if _borrows(probe, e.references) else e
        for e, probe in zip(expected, probes, strict=True)
    ]


def _borrows(probe: Probe, references: Outputs) -> bool:
    """Whether the probe is a perturbed copy of another one with outputs of many values, which tell
    the noise of both. Of few values, each copy has draws of its own."""
    copied = source(probe.name) != probe.name
    return copied and min(value.size for value in references.values()) >= FEW_VALUES


def _draws_left(references: Outputs, made: int) -> int:
    """Runs that round at random, beside those already made."""
    fewest = min(value.size for value in references.values())
    return max(1, -(-DRAWS // max(fewest, 1)) - made)
