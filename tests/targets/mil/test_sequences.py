"""Recurrent networks against PyTorch's, and sequences reversed in part."""

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
def test_rnn_gru_and_lstm(run: Run, direction: str, sequence: bool) -> None:
    torch.manual_seed(0)
    x = torch.from_numpy(X.copy()).flip(0) if direction == "reverse" else torch.from_numpy(X)
    common = {"direction": direction, "output_sequence": sequence}
    last = slice(None) if sequence else slice(-1, None)

    layer: Any = torch.nn.RNN(INPUT, HIDDEN)
    weights = arguments(layer, [0])
    found = run(lambda x, h: mb.rnn(x=x, initial_h=h, **weights, **common), [X, H])
    out, h = layer(x, torch.from_numpy(H)[None])
    agree(found, [out[last], h[0]])

    layer = torch.nn.GRU(INPUT, HIDDEN)
    with torch.no_grad():
        layer.bias_hh_l0[2 * HIDDEN :] = 0  # MIL has no bias inside of r * (W h).
    gates = arguments(layer, [0, 2, 1])
    found = run(lambda x, h: mb.gru(x=x, initial_h=h, **gates, **common), [X, H])
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
        "the way back of a bidirectional lstm is put out in the order of its input"
    ]


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"peephole": np.ones(3 * HIDDEN, np.float32)}, "'peephole' is not supported"),
        ({"clip": np.float32(1)}, "'clip' is not supported"),
        ({"activation": "scaled_tanh"}, "'scaled_tanh', whose constants are not documented"),
    ],
)
def test_what_is_left_out_is_named(run: Run, more: dict[str, Any], match: str) -> None:
    weights = {"weight_ih": normal(4 * HIDDEN, INPUT), "weight_hh": normal(4 * HIDDEN, HIDDEN)}
    with pytest.raises(ArtifactError, match=match):
        run(lambda x, h, c: mb.lstm(x=x, initial_h=h, initial_c=c, **weights, **more), [X, H, C])


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
