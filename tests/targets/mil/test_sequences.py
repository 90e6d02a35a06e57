"""Recurrent networks, compared with PyTorch, and partly reversed sequences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb

from slide_deploy.errors import ArtifactError
from slide_deploy.validators._mil import evaluate, read_package

Run = Callable[..., list[np.ndarray]]
RNG = np.random.default_rng(0)
LENGTH, BATCH, INPUT, HIDDEN = 5, 2, 3, 4


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


X, H, C = normal(LENGTH, BATCH, INPUT), normal(BATCH, HIDDEN), normal(BATCH, HIDDEN)


def arguments(layer: torch.nn.RNNBase, order: list[int], suffix: str = "") -> dict[str, Any]:
    """A layer's weights with their gates in MIL's order."""

    def ordered(name: str) -> np.ndarray:
        parts = np.split(getattr(layer, f"{name}_l0{suffix}").detach().numpy(), len(order))
        return np.concatenate([parts[i] for i in order])

    return {
        "weight_ih": ordered("weight_ih"),
        "weight_hh": ordered("weight_hh"),
        "bias": ordered("bias_ih") + ordered("bias_hh"),
    }


def agree(found: list[np.ndarray], expected: list[torch.Tensor]) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sequence", [True, False])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_rnn_and_lstm(run: Run, direction: str, sequence: bool) -> None:
    torch.manual_seed(0)
    x = torch.from_numpy(X.copy()).flip(0) if direction == "reverse" else torch.from_numpy(X)
    common = {"direction": direction, "output_sequence": sequence}
    last = slice(None) if sequence else slice(-1, None)

    layer: Any = torch.nn.RNN(INPUT, HIDDEN)
    weights = arguments(layer, [0])
    found = run(lambda x, h: mb.rnn(x=x, initial_h=h, **weights, **common), [X, H])
    out, h = layer(x, torch.from_numpy(H)[None])
    agree(found, [out[last], h[0]])

    layer = torch.nn.LSTM(INPUT, HIDDEN)
    cells = arguments(layer, [0, 1, 3, 2])
    found = run(
        lambda x, h, c: mb.lstm(x=x, initial_h=h, initial_c=c, **cells, **common), [X, H, C]
    )
    out, (h, c) = layer(x, (torch.from_numpy(H)[None], torch.from_numpy(C)[None]))
    agree(found, [out[last], h[0], c[0]])


def test_a_bidirectional_lstm(write: Callable[..., Path]) -> None:
    torch.manual_seed(0)
    layer = torch.nn.LSTM(INPUT, HIDDEN, bidirectional=True)
    weights = arguments(layer, [0, 1, 3, 2])
    back = arguments(layer, [0, 1, 3, 2], "_reverse")
    weights |= {f"{key}_back": value for key, value in back.items()}
    h, c = normal(2, BATCH, HIDDEN), normal(2, BATCH, HIDDEN)
    inputs = [X, np.concatenate(list(h), -1), np.concatenate(list(c), -1)]
    path = write(
        lambda x, h, c: mb.lstm(
            x=x,
            initial_h=h,
            initial_c=c,
            direction="bidirectional",
            output_sequence=True,
            **weights,
        ),
        inputs,
    )
    program, notes = read_package(path), list[str]()
    feeds = {v.name: value for v, value in zip(program.arguments, inputs, strict=True)}
    found = evaluate(program, feeds, note=notes.append)
    out, (h_n, c_n) = layer(torch.from_numpy(X), (torch.from_numpy(h), torch.from_numpy(c)))
    expected = [out, torch.cat(list(h_n), -1), torch.cat(list(c_n), -1)]
    agree([found[feature.name] for feature in program.outputs], expected)
    assert [note.split(": ")[1] for note in notes] == [
        "the backward outputs of a bidirectional lstm are in the order of its input"
    ]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_gru_resets_the_state_before_the_product(run: Run) -> None:
    """Apple's tests have W (r * h); PyTorch and the text have r * (W h)."""
    weight, hidden, bias = normal(3 * HIDDEN, INPUT), normal(3 * HIDDEN, HIDDEN), normal(3 * HIDDEN)
    outputs, last = run(
        lambda x, h: mb.gru(
            x=x,
            initial_h=h,
            weight_ih=weight,
            weight_hh=hidden,
            bias=bias,
            output_sequence=True,
        ),
        [X, H],
    )
    h = H.astype(np.float64)
    for step, found in zip(X, outputs, strict=True):
        r, o, z = np.split(step @ weight.T + bias, 3, axis=1)
        to_r, to_o, to_z = np.split(hidden, 3)
        r, z = sigmoid(r + h @ to_r.T), sigmoid(z + h @ to_z.T)
        h = (1 - z) * np.tanh(o + (r * h) @ to_o.T) + z * h
        np.testing.assert_allclose(found, h, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(last, outputs[-1])


def test_gru_of_coreml8_can_be_that_of_pytorch(run: Run) -> None:
    torch.manual_seed(0)
    layer = torch.nn.GRU(INPUT, HIDDEN)
    weights = arguments(layer, [0, 2, 1])

    def ordered(bias: torch.Tensor) -> np.ndarray:
        return np.concatenate([np.split(bias.detach().numpy(), 3)[i] for i in (0, 2, 1)])

    weights |= {"bias": ordered(layer.bias_hh_l0), "input_bias": ordered(layer.bias_ih_l0)}
    found = run(
        lambda x, h: mb.gru(x=x, initial_h=h, reset_after=True, output_sequence=True, **weights),
        [X, H],
        8,
    )
    out, h = layer(torch.from_numpy(X), torch.from_numpy(H)[None])
    agree(found, [out, h[0]])


HARD = {"activation": "hard_sigmoid", "clip": np.float32(0.2)}


def test_what_apples_tests_say_of_lstm(write: Callable[..., Path]) -> None:
    weight, hidden, p = normal(4 * HIDDEN, INPUT), normal(4 * HIDDEN, HIDDEN), normal(3 * HIDDEN)
    path = write(
        lambda x, h, c: mb.lstm(
            x=x,
            initial_h=h,
            initial_c=c,
            weight_ih=weight,
            weight_hh=hidden,
            peephole=p,
            output_sequence=True,
            **HARD,
        ),
        [X, H, C],
    )
    program, notes = read_package(path), list[str]()
    feeds = {v.name: value for v, value in zip(program.arguments, [X, H, C], strict=True)}
    found = evaluate(program, feeds, note=notes.append)
    h, c = H.astype(np.float64), C.astype(np.float64)
    to_i, to_f, to_o = np.split(p, 3)
    for step, ours in zip(X, found[program.outputs[0].name], strict=True):
        i, f, o, z = np.split(step @ weight.T + h @ hidden.T, 4, axis=1)
        c = sigmoid(f + to_f * c) * c + sigmoid(i + to_i * c) * np.tanh(z)
        c = np.clip(c, -0.2, 0.2)
        h = sigmoid(o + to_o * c) * np.clip(0.2 * c + 0.5, 0, 1)
        np.testing.assert_allclose(ours, h, rtol=1e-4, atol=1e-5)
    assert len(notes) == 3


def test_an_unknown_activation_is_named(run: Run) -> None:
    weights = {"weight_ih": normal(HIDDEN, INPUT), "weight_hh": normal(HIDDEN, HIDDEN)}
    with pytest.raises(ArtifactError, match="activation 'elu' is not supported"):
        run(lambda x, h: mb.rnn(x=x, initial_h=h, activation="elu", **weights), [X, H])


def test_reverse_sequence(run: Run) -> None:
    x = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    (found,) = run(
        lambda x: mb.reverse_sequence(x=x, lengths=[3, 1], seq_axis=1, batch_axis=0), [x]
    )
    np.testing.assert_array_equal(found[0], x[0, [2, 1, 0, 3]])
    np.testing.assert_array_equal(found[1], x[1])


def test_non_zero(run: Run) -> None:
    x = np.array([[0, 2, 0], [1, 0, -3]], np.float32)
    (found,) = run(lambda x: mb.non_zero(x=x), [x])
    np.testing.assert_array_equal(found, torch.from_numpy(x).nonzero().numpy())
    assert found.dtype == np.int32
