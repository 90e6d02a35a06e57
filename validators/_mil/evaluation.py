"""Runs a program in numpy, and checks its inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

import numpy as np

from slide_deploy.errors import ArtifactError
from slide_deploy.validators._mil.dtypes import Array, dtype_named
from slide_deploy.validators._mil.execution import Context, Observer, run_block
from slide_deploy.validators._mil.features import initial_state
from slide_deploy.validators._mil.images import as_tensor
from slide_deploy.validators._mil.ops import Note, ignore
from slide_deploy.validators._mil.program import Feature, Held, Program, shape_fits
from slide_deploy.validators._mil.variants import Variant

__all__ = ["evaluate", "new_state"]


def evaluate(
    program: Program,
    feeds: Mapping[str, Array],
    observe: Observer | None = None,
    note: Note = ignore,
    state: MutableMapping[str, Array] | None = None,
    variant: Variant | None = None,
) -> dict[str, Array]:
    """The outputs by name.

    observe: called with every computed value, in order; in loops in every iteration.
    note: called for each operation whose result depends on undocumented behaviour: on a rule taken
        from Apple's tests, or on a random generator.
    state: the result of `new_state`, possibly changed by earlier runs; changed in place. Without it
        a program with states starts from zeros.
    variant: other arithmetic in float16, one of VARIANTS.

    Raises:
        ArtifactError: an input is not as described, or an operation cannot be computed.
    """
    states = new_state(program) if state is None else state
    _check_states(program, states)
    values: dict[str, Held] = dict(_accepted(program, feeds))
    replaced = {} if variant is None else variant.operations
    context = Context(program.opset_number, states, observe, note, replaced)
    # Overflow gives infinity, as the program specifies.
    with np.errstate(all="ignore"):
        outputs = run_block(program.body, values, context)
    return {
        feature.name: _output(feature, array)
        for feature, array in zip(program.outputs, outputs, strict=True)
    }


def new_state(program: Program) -> dict[str, Array]:
    """The program's states before the first run: zeros."""
    return {value.name: initial_state(value) for value in program.states}


def _check_states(program: Program, states: Mapping[str, Array]) -> None:
    for name, zeros in new_state(program).items():
        given = states.get(name)
        if given is None or given.dtype != zeros.dtype or given.shape != zeros.shape:
            raise ArtifactError(f"the state {name} is not {zeros.dtype} of shape {zeros.shape}")


def _accepted(program: Program, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The feeds, after a check of their names, types and shapes."""
    names = [feature.name for feature in program.inputs]
    if sorted(feeds) != sorted(names):
        raise ArtifactError(f"inputs are {sorted(feeds)}, but the program has {sorted(names)}")
    declared = {value.name: value.type for value in program.arguments}
    accepted = {}
    for feature in program.inputs:
        array = as_tensor(feature, feeds[feature.name])
        if array.dtype != dtype_named(feature.dtype).numpy:
            raise ArtifactError(f"input {feature.name} is {array.dtype}, not {feature.dtype}")
        if not (
            feature.accepts(array.shape) and shape_fits(array.shape, declared[feature.name].shape)
        ):
            raise ArtifactError(f"input {feature.name}: shape {array.shape} is not accepted")
        accepted[feature.name] = array
    return accepted


def _output(feature: Feature, array: Array) -> Array:
    """A copy of an output, which may be a view of a feed or a weight."""
    if not feature.accepts(array.shape):
        raise ArtifactError(f"output {feature.name}: shape {array.shape} is not as described")
    return array.copy()
