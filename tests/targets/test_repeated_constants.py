"""Constants with repeated columns are stored as a table and an index, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slide_deploy.exporters._repeated import SMALLEST, table_of


@given(
    heads=st.integers(1, 6),
    different=st.integers(1, 300),
    side=st.integers(150, 200),
    dtype=st.sampled_from([np.float32, np.float16]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_table_gives_the_constant_back(heads, different, side, dtype, seed):
    rng = np.random.default_rng(seed)
    columns = rng.standard_normal((heads, different)).astype(dtype)
    columns[0, 0], columns[-1, -1] = -0.0, np.nan
    value = columns[:, rng.integers(different, size=(side, side))]
    found = table_of(value)
    if found is None:
        assert value.nbytes < SMALLEST or 2 * (columns.nbytes + 4 * side**2) > value.nbytes
    else:
        table, index = found
        assert np.take(table, index, axis=1).tobytes() == value.tobytes()
        assert 2 * (table.nbytes + index.nbytes) <= value.nbytes


def test_equal_patterns_have_equal_indices():
    rng = np.random.default_rng(0)
    pattern = rng.integers(300, size=(200, 200))
    tables = rng.standard_normal((2, 4, 300)).astype(np.float32)
    first, second = (table_of(table[:, pattern]) for table in tables)
    assert first
    assert second
    assert np.array_equal(first[1], second[1])


@pytest.mark.parametrize("shape", [(400, 400), (3, 40_000), (60_000,), (8, 8)])
def test_weights_are_stored_as_they_are(shape):
    assert table_of(np.random.default_rng(0).standard_normal(shape).astype(np.float32)) is None


@pytest.mark.parametrize(
    "value", [np.zeros((4, 20_000), np.int64), np.float32(1), np.zeros(0, np.float32)]
)
def test_other_constants_are_stored_as_they_are(value):
    assert table_of(np.asarray(value)) is None


def test_an_artifact_is_smaller_and_computes_the_same(tmp_path):
    import onnx
    import onnxruntime
    import torch

    from slide_deploy import write_artifact
    from slide_deploy.capture import Capture
    from slide_deploy.types import TensorSpec

    class Biased(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            index = torch.arange(400)[:, None] + torch.arange(400)[None, :]
            self.register_buffer("bias", torch.randn(8, 799)[:, index])
            self.register_buffer("other", torch.randn(8, 799)[:, index])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return ((x + self.bias).softmax(dim=-1) + self.other).softmax(dim=-1)

    torch.manual_seed(0)
    module = Biased().eval()
    x = TensorSpec("x", (8, 400, 400))
    capture = Capture(module, (x,), (TensorSpec("y", x.shape),), {})
    path = tmp_path / write_artifact("onnx", "biased", capture, tmp_path).path
    assert path.stat().st_size < module.bias.nbytes * 0.3
    gathers = [node for node in onnx.load(path).graph.node if node.op_type == "Gather"]
    assert len({node.input[0] for node in gathers}) == 2
    assert len({node.input[1] for node in gathers}) == 1
    given_x = torch.randn(x.shape)
    session = onnxruntime.InferenceSession(path)
    (found,) = session.run(None, {"x": given_x.numpy()})
    np.testing.assert_allclose(found, module(given_x).numpy(), rtol=1e-5)
