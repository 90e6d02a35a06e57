"""Folded window attention equals window attention."""

from __future__ import annotations

import pytest
import torch

from slide_deploy.errors import ConversionError
from slide_deploy.models import folded_window_attention
from slide_deploy.models.folded_window_attention import FoldedWindowAttention
from slide_deploy.models.slide_swin import fold_windows


@pytest.mark.parametrize("shifts", [True, False])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_folding_changes_nothing(make_model, shifts: bool, qkv_bias: bool) -> None:
    # On a map of 4×4 windows of 2 shift; one of 4 sees all of it and does not.
    model = make_model(window_size=2 if shifts else 4, qkv_bias=qkv_bias).double()
    folded = fold_windows(model)
    found = [m for m in folded.modules() if isinstance(m, FoldedWindowAttention)]
    assert len(found) == 2
    assert [bool(m.shift) for m in found] == [False, shifts]
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x), rtol=1e-12, atol=1e-12)


def test_nothing_is_left_to_look_up(make_model) -> None:
    model = fold_windows(make_model())
    graph = torch.export.export(model, (torch.zeros(1, 3, 16, 16),)).graph
    assert not [node for node in graph.nodes if "index" in str(node.target)]


def test_a_wrong_fold_is_refused(make_model, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(FoldedWindowAttention):
        def __init__(self, *given: object) -> None:
            super().__init__(*given)
            self.bias[0, 0, 1] += 1e-6

    monkeypatch.setattr(folded_window_attention, "FoldedWindowAttention", Wrong)
    with pytest.raises(ConversionError, match=r"layers\.1\.blocks\.0\.attn"):
        fold_windows(make_model())
