"""The shared types."""

from __future__ import annotations

import pytest

from slide_deploy.types import TensorSpec, with_batch


@pytest.mark.parametrize("batch", [2, "batch"])
def test_another_batch_changes_the_first_dimension_alone(batch: int | str) -> None:
    spec = TensorSpec("image", (1, 3, 8, 8), "float16")
    assert with_batch(spec, batch) == TensorSpec("image", (batch, 3, 8, 8), "float16")
