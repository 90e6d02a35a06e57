"""Recurrent networks over sequences [s, b, i]: plain, gated units, long short-term memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import special

from slide_deploy.validators._mil.dtypes import Array
from slide_deploy.validators._mil.ops.registry import Note, operation
from slide_deploy.validators._mil.program import Unsupported

__all__ = ["gru", "lstm", "rnn"]

Activation = Callable[[Array], Array]
# Input projected by weight_ih, with bias; state -> new state. The first of the state is the output.
Step = Callable[[Array, tuple[Array, ...]], tuple[Array, ...]]

_ACTIVATIONS: dict[str, Activation] = {
    "hard_sigmoid": lambda x: np.clip(np.float32(0.2) * x + np.float32(0.5), 0, 1),
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "scaled_tanh": lambda x: np.tanh(x),
    "sigmoid": lambda x: special.expit(x),
    "sigmoid_hard": lambda x: np.clip(np.float32(0.2) * x + np.float32(0.5), 0, 1),
    "tanh": lambda x: np.tanh(x),
}
# Those whose constants are not documented; Apple's tests of lstm have the ones above.
_BY_RULE = ("hard_sigmoid", "scaled_tanh", "sigmoid_hard")


@operation("rnn")
def rnn(
    x: Array,
    initial_h: Array,
    weight_ih: Array,
    weight_hh: Array,
    note: Note,
    bias: Array | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    activation: str = "tanh",
) -> tuple[Array, Array]:
    """h = activation(W_ih x + W_hh h + bias); returns all hidden states and the last one."""
    act = _activation(activation, note)

    def step(projected: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
        return (act(projected + state[0] @ weight_hh.T),)

    outputs, (h,) = _one_way(x, weight_ih, bias, (initial_h,), step, direction, note)
    return _kept(outputs, output_sequence), h


@operation("gru")
def gru(
    x: Array,
    initial_h: Array,
    weight_ih: Array,
    weight_hh: Array,
    note: Note,
    bias: Array | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    activation: str = "tanh",
    reset_after: bool = False,
    input_bias: Array | None = None,
) -> tuple[Array, Array]:
    """Gates in the order reset, output, update; W (r * h), or r * (W h + bias) by `reset_after`."""
    when = "after" if reset_after else "before"
    note(f"the reset gate is applied {when} the product, as in Apple's tests, not as in the text")
    gate, act = _activation(recurrent_activation, note), _activation(activation, note)
    hidden_r, hidden_o, hidden_z = np.split(weight_hh, 3)
    none = np.zeros(len(weight_hh), np.float32)
    b_r, b_o, b_z = np.split(none if bias is None else bias, 3)

    def step(projected: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
        (h,) = state
        at_r, at_o, at_z = np.split(projected, 3, axis=-1)
        r, z = gate(at_r + h @ hidden_r.T + b_r), gate(at_z + h @ hidden_z.T + b_z)
        if reset_after:
            o = act(at_o + r * (h @ hidden_o.T + b_o))
        else:
            o = act(at_o + (r * h) @ hidden_o.T + b_o)
        return ((1 - z) * o + z * h,)

    outputs, (h,) = _one_way(x, weight_ih, input_bias, (initial_h,), step, direction, note)
    return _kept(outputs, output_sequence), h


@operation("lstm")
def lstm(
    x: Array,
    initial_h: Array,
    initial_c: Array,
    weight_ih: Array,
    weight_hh: Array,
    note: Note,
    bias: Array | None = None,
    peephole: Array | None = None,
    weight_ih_back: Array | None = None,
    weight_hh_back: Array | None = None,
    bias_back: Array | None = None,
    peephole_back: Array | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    cell_activation: str = "tanh",
    activation: str = "tanh",
    clip: float | None = None,
) -> tuple[Array, Array, Array]:
    """Gates in the order input, forget, output, cell; all outputs, the last one, the last cell."""
    if clip is not None:
        note("the new cell state is clipped, not the cell gate")
    if peephole is not None or peephole_back is not None:
        note("the peephole adds the old cell to the input and forget gates, the new to the output")
    names = (recurrent_activation, cell_activation, activation)
    functions = tuple(_activation(name, note) for name in names)
    if direction != "bidirectional":
        step = _lstm_step(weight_hh, peephole, functions, clip)
        state = (initial_h, initial_c)
        outputs, (h, c) = _one_way(x, weight_ih, bias, state, step, direction, note)
        return _kept(outputs, output_sequence), h, c
    if weight_ih_back is None or weight_hh_back is None:
        raise ValueError("no weights for the backward direction")
    forward, back = (
        tuple(np.split(state, 2, axis=-1)[way] for state in (initial_h, initial_c))
        for way in (0, 1)
    )
    there, (h, c) = _run(
        x, weight_ih, bias, forward, _lstm_step(weight_hh, peephole, functions, clip)
    )
    step = _lstm_step(weight_hh_back, peephole_back, functions, clip)
    returning, (h_back, c_back) = _run(x[::-1], weight_ih_back, bias_back, back, step)
    if output_sequence:
        note("the backward outputs of a bidirectional lstm are in the order of its input")
        outputs = np.concatenate([there, returning[::-1]], axis=-1)
    else:
        outputs = np.concatenate([there[-1:], returning[-1:]], axis=-1)
    return (
        outputs,
        np.concatenate([h, h_back], axis=-1),
        np.concatenate([c, c_back], axis=-1),
    )


def _lstm_step(
    weight_hh: Array,
    peephole: Array | None,
    functions: tuple[Activation, ...],
    clip: float | None,
) -> Step:
    gate, cell, act = functions
    none = np.zeros(3 * weight_hh.shape[1], np.float32)
    to_i, to_f, to_o = np.split(none if peephole is None else peephole, 3)

    def step(projected: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
        h, c = state
        i, f, o, z = np.split(projected + h @ weight_hh.T, 4, axis=-1)
        c = gate(f + to_f * c) * c + gate(i + to_i * c) * cell(z)
        if clip is not None:
            c = np.clip(c, -clip, clip)
        return gate(o + to_o * c) * act(c), c

    return step


def _one_way(
    x: Array,
    weight: Array,
    bias: Array | None,
    state: tuple[Array, ...],
    step: Step,
    direction: str,
    note: Note,
) -> tuple[Array, tuple[Array, ...]]:
    if direction not in ("forward", "reverse"):
        raise ValueError(f"unknown direction {direction!r}")
    if direction == "reverse":
        note("outputs of a sequence read in reverse are in the order in which it was read")
        x = x[::-1]
    return _run(x, weight, bias, state, step)


def _run(
    x: Array, weight: Array, bias: Array | None, state: tuple[Array, ...], step: Step
) -> tuple[Array, tuple[Array, ...]]:
    """The outputs of all steps and the state after the last."""
    if x.ndim != 3 or not len(x):
        raise ValueError(f"x of shape {x.shape}, not [sequence, batch, features]")
    for part in state:
        if part.ndim != 2 or len(part) != x.shape[1]:
            raise ValueError(f"a state of shape {part.shape} for a batch of {x.shape[1]}")
    projected = x @ weight.T
    if bias is not None:
        projected = projected + bias
    outputs = []
    for part in projected:
        state = step(part, state)
        outputs.append(state[0])
    return np.stack(outputs), state


def _kept(outputs: Array, output_sequence: bool) -> Array:
    return outputs if output_sequence else outputs[-1:]


def _activation(name: str, note: Note) -> Activation:
    if name not in _ACTIVATIONS:
        raise Unsupported(f"the activation {name!r} is not supported")
    if name in _BY_RULE:
        note(f"the activation {name!r} has the constants of Apple's tests")
    return _ACTIVATIONS[name]
