"""Models that coremltools fails to convert without our help."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slide_deploy.artifacts.write import write_artifact
from slide_deploy.capture import Capture
from slide_deploy.types import TensorSpec
from slide_deploy.validators.coreml import RUNTIME


class Score(nn.Module):
    """The probability of one object, as detectors compute it."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.score(x) - 4.6)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_scalar_may_be_added_to_a_product_of_one_output(tmp_path: Path, batch: int) -> None:
    torch.manual_seed(0)
    module = Score().eval()
    inputs, outputs = (TensorSpec("x", (batch, 4)),), (TensorSpec("y", (batch, 1)),)
    record = write_artifact("coreml", "score", Capture(module, inputs, outputs, {}), tmp_path)
    x = torch.randn(batch, 4)
    made = RUNTIME.open(tmp_path / record.path).run({"x": x.numpy()})["y"]
    np.testing.assert_allclose(made, module(x).detach().numpy(), rtol=1e-5)
